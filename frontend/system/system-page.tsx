/** The machine and the server: load, workers, health, what clips took and what would help, and who uses it. */

import { useQuery } from "@tanstack/react-query";
import type { Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import { PageFrame } from "@/ui/page";
import { Parts } from "@/ui/parts";
import { Skeleton } from "@/ui/status";
import { AnalyticsPart } from "./analytics-part";
import { HealthPart } from "./health-part";
import { LoadPart } from "./load/load-part";
import { UsePart } from "./use-part";
import { WorkersPart } from "./workers-part";

export default function SystemPage() {
  const { data: session } = useQuery<Schemas["Session"]>({ queryKey: KEYS.session, enabled: false });
  if (!session) {
    return (
      <PageFrame title="System">
        <Skeleton className="h-96" />
      </PageFrame>
    );
  }
  return (
    <PageFrame title="System">
      <Parts
        to="/system"
        label="Parts of the system"
        testId="system"
        parts={[
          { id: "load", title: "Load", about: "What this machine does now and did before.", content: LoadPart },
          { id: "workers", title: "Workers", about: "The processes that make the clips.", content: WorkersPart },
          {
            id: "health",
            title: "Health",
            about: "What works, what does not, and what was done about it.",
            content: HealthPart,
          },
          {
            id: "analytics",
            title: "Times and advice",
            about: "What ended tasks took, and what would make the next ones better.",
            content: AnalyticsPart,
          },
          { id: "use", title: "Who uses it", about: "What uses the card and the API right now.", content: UsePart },
        ]}
      />
    </PageFrame>
  );
}
