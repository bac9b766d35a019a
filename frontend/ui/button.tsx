/** Buttons: with a label, or with a picture alone, whose name and key are then in its tooltip. */

import { cva, type VariantProps } from "class-variance-authority";
import type { LucideIcon } from "lucide-react";
import type { ComponentProps } from "react";
import { classes } from "./classes";
import { Tip } from "./tooltip";

const looks = cva(
  "inline-flex items-center justify-center gap-2 rounded-lg font-medium whitespace-nowrap transition-colors disabled:opacity-55 select-none",
  {
    variants: {
      kind: {
        primary: "bg-accent text-on-accent hover:bg-accent-strong",
        plain: "border border-control bg-panel hover:bg-raised",
        quiet: "hover:bg-raised text-ink",
        danger: "border border-danger text-danger hover:bg-danger hover:text-panel",
      },
      size: { small: "h-8 px-2.5 text-[0.8125rem]", normal: "h-9 px-3.5", large: "h-11 px-5 text-base" },
    },
    defaultVariants: { kind: "plain", size: "normal" },
  },
);

type ButtonProps = ComponentProps<"button"> & VariantProps<typeof looks> & { icon?: LucideIcon };

export function Button({ kind, size, icon: Icon, className, children, type = "button", ...rest }: ButtonProps) {
  return (
    <button type={type} className={classes(looks({ kind, size }), className)} {...rest}>
      {Icon && <Icon aria-hidden className="size-4 shrink-0" />}
      {children}
    </button>
  );
}

type IconButtonProps = Omit<ComponentProps<"button">, "aria-label"> & {
  /** What it does; read by screen readers and shown in the tooltip. */
  label: string;
  icon: LucideIcon;
  /** The key that does the same, as shown to people. */
  shortcut?: string;
  /** Whether it is switched on; only for a button that can be. */
  pressed?: boolean;
  size?: "small" | "normal";
};

export function IconButton({ label, icon: Icon, shortcut, pressed, size, className, ...rest }: IconButtonProps) {
  const box = size === "small" ? "size-8" : "size-9";
  return (
    <Tip text={label} shortcut={shortcut}>
      <button
        type="button"
        aria-label={label}
        aria-pressed={pressed}
        className={classes(
          "inline-flex items-center justify-center rounded-lg text-ink hover:bg-raised disabled:opacity-55",
          pressed && "bg-tint text-accent-strong",
          box,
          className,
        )}
        {...rest}
      >
        <Icon aria-hidden className="size-4.5" />
      </button>
    </Tip>
  );
}
