/** Small things that say how something is: badge, bar, skeleton, empty place, box with a note. */

import type { LucideIcon } from "lucide-react";
import type { ReactNode } from "react";
import { classes } from "./classes";

export type Tone = "plain" | "accent" | "good" | "warn" | "danger";

const TONES: Record<Tone, string> = {
  plain: "border-edge text-soft",
  accent: "border-accent text-accent-strong",
  good: "border-good text-good",
  warn: "border-warn text-warn",
  danger: "border-danger text-danger",
};

export function Badge({ tone = "plain", children, testId }: { tone?: Tone; children: ReactNode; testId?: string }) {
  return (
    <span
      data-testid={testId}
      className={classes(
        "inline-flex items-center rounded-full border px-2 text-xs leading-5 whitespace-nowrap",
        TONES[tone],
      )}
    >
      {children}
    </span>
  );
}

/** `value` in percent; null = under way, and nobody knows how far. */
export function ProgressBar({ value, label, testId }: { value: number | null; label: string; testId?: string }) {
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={value === null ? undefined : Math.round(value)}
      data-testid={testId}
      className="h-1.5 overflow-hidden rounded-full bg-raised"
    >
      <div
        className={classes("h-full rounded-full bg-accent transition-[width]", value === null && "w-1/3 animate-pulse")}
        style={value === null ? undefined : { width: `${Math.min(100, value)}%` }}
      />
    </div>
  );
}

export function Skeleton({ className }: { className?: string }) {
  return <div aria-hidden className={classes("animate-pulse rounded-lg bg-raised", className)} />;
}

export function Empty({ icon: Icon, title, children }: { icon: LucideIcon; title: string; children?: ReactNode }) {
  return (
    <div className="flex flex-col items-center justify-center gap-2 px-6 py-14 text-center">
      <Icon aria-hidden className="size-8 text-soft" />
      <h2 className="text-base font-semibold">{title}</h2>
      {children && <div className="max-w-md text-soft">{children}</div>}
    </div>
  );
}

export function Note({ tone = "plain", children, testId }: { tone?: Tone; children: ReactNode; testId?: string }) {
  return (
    <div data-testid={testId} className={classes("rounded-lg border bg-panel px-3 py-2", TONES[tone])}>
      {children}
    </div>
  );
}

export function Panel({
  title,
  aside,
  children,
  className,
}: {
  title?: string;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  return (
    <section className={classes("rounded-xl border border-edge bg-panel p-4", className)}>
      {(title || aside) && (
        <header className="mb-3 flex items-center justify-between gap-2">
          {title && <h2 className="font-semibold">{title}</h2>}
          {aside}
        </header>
      )}
      {children}
    </section>
  );
}
