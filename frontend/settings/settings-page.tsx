/** Settings in parts: of this browser, of the server, its history, keys, and the session. The address names the part. */

import { Link, useLocation } from "@tanstack/react-router";
import type { ComponentType } from "react";
import { classes } from "@/ui/classes";
import { PageFrame } from "@/ui/page";
import { Skeleton } from "@/ui/status";
import { BrowserPart } from "./browser-part";
import { HistoryPart } from "./history-part";
import { KeysPart } from "./keys-part";
import { PolicyPart } from "./policy-part";
import { ServerPart } from "./server-part";
import { SessionPart, useSession } from "./session-part";

type Part = { id: string; title: string; about: string; part: ComponentType; admin?: boolean };

const PARTS: [Part, ...Part[]] = [
  {
    id: "browser",
    title: "This browser",
    about: "Kept in this browser alone.",
    part: BrowserPart,
  },
  {
    id: "generation",
    title: "Generation",
    about: "Counts for every request from the next one on.",
    part: PolicyPart,
  },
  {
    id: "server",
    title: "Server",
    about:
      "Everything that config.json can say. A variable of the environment or the command line stands above it. Most of section Server counts from the next start on, the rest at once.",
    part: ServerPart,
  },
  {
    id: "history",
    title: "History",
    about: "Every change is a version, and each can be taken back.",
    part: HistoryPart,
  },
  {
    id: "keys",
    title: "API keys",
    about: "For other people and for programs.",
    part: KeysPart,
    admin: true,
  },
  { id: "session", title: "Session", about: "Who this browser is for the server.", part: SessionPart },
];

export default function SettingsPage() {
  const hash = useLocation({ select: (location) => location.hash });
  const { data: session } = useSession();
  const admin = session?.scopes.includes("admin");
  const parts = PARTS.filter((one) => !one.admin || admin);
  const chosen = parts.find((one) => one.id === hash) ?? PARTS[0];
  if (!session) {
    return (
      <PageFrame title="Settings">
        <Skeleton className="h-96" />
      </PageFrame>
    );
  }
  return (
    <PageFrame title="Settings">
      <div className="gap-6 lg:grid lg:grid-cols-[11rem_minmax(0,1fr)]">
        <nav aria-label="Parts of the settings" className="mb-4 lg:mb-0">
          <ul className="flex flex-wrap gap-1 lg:sticky lg:top-3 lg:flex-col">
            {parts.map((one) => (
              <li key={one.id}>
                <Link
                  to="/settings"
                  hash={one.id}
                  resetScroll={false}
                  activeOptions={{ includeHash: true, exact: true }}
                  data-testid={`settings-${one.id}`}
                  className={classes(
                    "block rounded-lg px-3 py-1.5",
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
          <chosen.part key={chosen.id} />
        </div>
      </div>
    </PageFrame>
  );
}
