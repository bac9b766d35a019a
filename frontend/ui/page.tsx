/** The frame of a page that scrolls as a whole: its title, what it is about, and actions clear of the queue's button. */

import type { ReactNode } from "react";

type FrameProps = { title: string; about?: ReactNode; actions?: ReactNode; children: ReactNode };

export function PageFrame({ title, about, actions, children }: FrameProps) {
  return (
    <div className="h-full overflow-y-auto">
      <div className="mx-auto max-w-7xl space-y-4 px-4 pt-3 pb-8 md:px-6">
        <header className="space-y-2">
          <h1 className="flex min-h-9 items-center pr-32 text-lg font-semibold">{title}</h1>
          {about && <p className="max-w-3xl text-soft">{about}</p>}
          {actions && <div className="flex flex-wrap items-end gap-2">{actions}</div>}
        </header>
        {children}
      </div>
    </div>
  );
}

/** Pairs of a name and a value, as a list of definitions. */
export function Facts({ facts }: { facts: readonly (readonly [string, ReactNode] | null)[] }) {
  return (
    <dl className="grid grid-cols-[6.5rem_minmax(0,1fr)] gap-x-4 gap-y-1">
      {facts
        .filter((fact) => fact !== null)
        .map(([name, value]) => (
          <div key={name} className="contents">
            <dt className="text-soft">{name}</dt>
            <dd className="min-w-0 break-words">{value}</dd>
          </div>
        ))}
    </dl>
  );
}
