/** The parts of a page, of which the address names one behind its `#`: a list of links at the side, above on a phone. */

import { Link, useLocation } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { classes } from "./classes";

export type Part = { id: string; title: string; about: string; content: () => ReactNode };

type PartsProps = { to: "/settings" | "/system"; label: string; parts: readonly [Part, ...Part[]]; testId: string };

export function Parts({ to, label, parts, testId }: PartsProps) {
  const hash = useLocation({ select: (location) => location.hash });
  const chosen = parts.find((one) => one.id === hash) ?? parts[0];
  const Content = chosen.content;
  return (
    <div className="gap-6 lg:grid lg:grid-cols-[11rem_minmax(0,1fr)]">
      <nav aria-label={label} className="mb-4 lg:mb-0">
        <ul className="grid grid-cols-3 gap-1 lg:sticky lg:top-3 lg:flex lg:flex-col">
          {parts.map((one) => (
            <li key={one.id}>
              <Link
                to={to}
                hash={one.id}
                resetScroll={false}
                activeOptions={{ includeHash: true, exact: true }}
                data-testid={`${testId}-${one.id}`}
                className={classes(
                  "block rounded-lg px-2 py-1.5 lg:px-3",
                  one === chosen
                    ? "bg-tint font-medium text-accent-strong"
                    : "text-soft hover:bg-raised hover:text-ink",
                )}
              >
                {one.title}
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <div className="min-w-0 space-y-3">
        <div>
          <h2 className="text-base font-semibold">{chosen.title}</h2>
          <p className="text-soft">{chosen.about}</p>
        </div>
        <Content key={chosen.id} />
      </div>
    </div>
  );
}
