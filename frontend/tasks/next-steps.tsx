/** The next steps that the server names for a failed task, as buttons where the page can take them. */

import { useMutation } from "@tanstack/react-query";
import { api, asProblem, data, type NextStep } from "@/http/client";
import type { Task } from "@/live/reducer";
import { Button } from "@/ui/button";
import { say } from "@/ui/toasts";

/** Words for a change of a request: `num_frames` to 81. */
function changesInWords(changes: Record<string, unknown>): string {
  return Object.entries(changes)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value)}`)
    .join(", ");
}

export function NextSteps({ task }: { task: Task }) {
  const take = useMutation({
    mutationFn: async (step: NextStep): Promise<string> => {
      const path = { params: { path: { task_id: task.id } } };
      if (step.action === "resubmit") {
        await data(api.POST("/api/v1/queue/{task_id}/duplicate", { ...path, body: (step.changes ?? {}) as never }));
        return "Queued again, with the change";
      }
      if (step.action === "download") {
        const model_type = String(step.model ?? task.model);
        await data(api.POST("/api/v1/models/download", { body: { model_type } as never }));
        return "The download has begun";
      }
      await data(api.POST("/api/v1/queue/{task_id}/retry", path));
      return "Queued again";
    },
    onSuccess: (title) => say({ title }),
    onError: (error) => say({ title: asProblem(error).message, urgent: true }),
  });
  const steps = ((task.actions ?? []) as NextStep[]).flatMap((step) => {
    if (step.action === "resubmit") {
      return [{ step, label: `Try with ${changesInWords((step.changes ?? {}) as Record<string, unknown>)}` }];
    }
    return step.action === "download" ? [{ step, label: "Download the model" }] : [];
  });
  return (
    <div className="mt-1 space-y-1 text-xs">
      {(task.suggestions ?? []).map((suggestion) => (
        <p key={String(suggestion)}>{String(suggestion)}</p>
      ))}
      <div className="flex flex-wrap gap-1.5">
        {steps.map(({ step, label }) => (
          <Button key={label} size="small" disabled={take.isPending} onClick={() => take.mutate(step)}>
            {label}
          </Button>
        ))}
      </div>
    </div>
  );
}
