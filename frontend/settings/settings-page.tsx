/** Settings in parts: of this browser, of the server, its history, keys, and the session. */

import { PageFrame } from "@/ui/page";
import { type Part, Parts } from "@/ui/parts";
import { Skeleton } from "@/ui/status";
import { BrowserPart } from "./browser-part";
import { HistoryPart } from "./history-part";
import { KeysPart } from "./keys-part";
import { PolicyPart } from "./policy-part";
import { ServerPart } from "./server-part";
import { SessionPart, useSession } from "./session-part";

const BROWSER: Part = {
  id: "browser",
  title: "This browser",
  about: "Kept in this browser alone.",
  content: BrowserPart,
};

const KEYS: Part = { id: "keys", title: "API keys", about: "For other people and for programs.", content: KeysPart };

const SERVER: Part[] = [
  {
    id: "generation",
    title: "Generation",
    about: "Counts for every request from the next one on.",
    content: PolicyPart,
  },
  {
    id: "server",
    title: "Server",
    about:
      "Everything that config.json can say. A variable of the environment or the command line stands above it. Most of section Server counts from the next start on, the rest at once.",
    content: ServerPart,
  },
  {
    id: "history",
    title: "History",
    about: "Every change is a version, and each can be taken back.",
    content: HistoryPart,
  },
];

const SESSION: Part = {
  id: "session",
  title: "Session",
  about: "Who this browser is for the server.",
  content: SessionPart,
};

export default function SettingsPage() {
  const { data: session } = useSession();
  const keys = session?.scopes.includes("admin") ? [KEYS] : [];
  return (
    <PageFrame title="Settings">
      {session ? (
        <Parts
          to="/settings"
          label="Parts of the settings"
          testId="settings"
          parts={[BROWSER, ...SERVER, ...keys, SESSION]}
        />
      ) : (
        <Skeleton className="h-96" />
      )}
    </PageFrame>
  );
}
