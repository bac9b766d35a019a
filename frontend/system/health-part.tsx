/** How the server is: its components, what the health monitor finds, and what was done about it, with the way back. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { CircleCheck, CircleX, TriangleAlert, Undo2, Wrench } from "lucide-react";
import { useState } from "react";
import { moment } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { SelectField } from "@/ui/fields";
import { Badge, Note, Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { useAllowed } from "./session";
import { useIntegration } from "./workers-part";

const POLL_MS = 15_000;
const RECOVERY = [...KEYS.health, "recovery"];

/** `apply_vram_optimization` in words. */
function plain(name: string): string {
  const words = name.replaceAll("_", " ").replace("vram", "VRAM").replace("gpu", "GPU").replace("cpu", "CPU");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function HealthPart() {
  const status = useIntegration();
  const recovery = useQuery({
    queryKey: RECOVERY,
    queryFn: () => data(api.GET("/api/v1/recovery/status")),
    refetchInterval: POLL_MS,
  });
  const words = useQuery({
    queryKey: ["recovery-words"],
    queryFn: () => data(api.GET("/api/v1/recovery/actions")),
    staleTime: Infinity,
  });
  if (status.error && !status.data) return <ProblemNote error={status.error} retry={() => void status.refetch()} />;
  if (recovery.error && !recovery.data) return <ProblemNote error={recovery.error} />;
  if (!status.data || !recovery.data || !(words.data || words.error)) return <Skeleton className="h-96" />;
  const { findings } = recovery.data.current_health_status;
  return (
    <div className="space-y-4">
      <Note tone={status.data.status === "ready" ? "good" : "warn"} testId="health-summary">
        {status.data.message}
      </Note>
      {status.data.initialization_errors.map((error) => (
        <Note key={error} tone="danger">
          {error}
        </Note>
      ))}
      <Panel title="What the health monitor finds">
        {findings.length === 0 && <p className="text-soft">Nothing is wrong.</p>}
        <ul className="space-y-3">
          {findings.map((finding) => (
            <li key={finding.name} className="flex gap-2">
              <TriangleAlert aria-hidden className={finding.critical ? "size-4 text-danger" : "size-4 text-warn"} />
              <div className="min-w-0 flex-1">
                <p className="font-medium">{finding.message}</p>
                <p>{finding.recommendation}</p>
                {finding.action && <p className="text-xs text-soft">If it lasts: {plain(finding.action)}</p>}
              </div>
            </li>
          ))}
        </ul>
      </Panel>
      <RecoveryLog status={recovery.data} words={words.data} />
      <Panel title="Components">
        <ul>
          {Object.entries(status.data.components).map(([name, one]) => (
            <li key={name} className="flex items-start gap-2 border-t border-edge py-2 first:border-t-0">
              {one.is_ready ? (
                <CircleCheck aria-hidden className="mt-0.5 size-4 shrink-0 text-good" />
              ) : (
                <CircleX aria-hidden className="mt-0.5 size-4 shrink-0 text-danger" />
              )}
              <div className="min-w-0 flex-1">
                <p className="font-medium">{plain(name)}</p>
                <p className="break-words text-soft">{one.message}</p>
              </div>
              <div className="text-right text-xs text-soft">
                <p>{one.status}</p>
                <p>since {moment(one.since)}</p>
              </div>
            </li>
          ))}
        </ul>
      </Panel>
    </div>
  );
}

type LogProps = { status: Schemas["RecoveryStatus"]; words?: Schemas["RecoveryWords"] };

function RecoveryLog({ status, words }: LogProps) {
  const cache = useQueryClient();
  const allowed = useAllowed("admin");
  const [action, setAction] = useState("system_health_check");
  const [failure, setFailure] = useState("system_resource_error");
  const options = {
    onError: (error: unknown) => say({ title: asProblem(error).message, urgent: true }),
    onSettled: () => cache.invalidateQueries({ queryKey: RECOVERY }),
  };
  const reset = useMutation({
    ...options,
    mutationFn: () => data(api.POST("/api/v1/recovery/reset", {})),
    onSuccess: ({ message }) => say({ title: message }),
  });
  const trigger = useMutation({
    ...options,
    mutationFn: () =>
      data(api.POST("/api/v1/recovery/trigger", { body: { failure_type: failure, context: { action } } })),
    onSuccess: ({ message, success }) => say({ title: message, urgent: !success }),
  });
  const undoable = status.recent_actions.some((one) => one.reversible && !one.undone_at);
  return (
    <Panel
      title="What was done about it"
      aside={
        <Button
          size="small"
          icon={Undo2}
          disabled={!allowed || !undoable || reset.isPending}
          onClick={() => reset.mutate()}
        >
          Take everything back
        </Button>
      }
    >
      {status.degraded_mode_active && (
        <p className="mb-2 text-warn">An action still restricts something. Taking it back lifts that.</p>
      )}
      {status.recent_actions.length === 0 && (
        <p className="text-soft">
          Nothing yet.{" "}
          {status.recovery_system_active
            ? "The server acts by itself, within a budget."
            : "The server does not act by itself."}
        </p>
      )}
      <ol>
        {status.recent_actions.map((one) => (
          <li
            key={one.id}
            className="flex flex-wrap items-start gap-2 border-t border-edge py-2 first:border-t-0"
            data-testid="recovery-action"
          >
            <div className="min-w-0 flex-1">
              <p className="font-medium">{one.message}</p>
              <p className="text-xs text-soft">
                {plain(one.action)} · {one.reason} · {moment(one.timestamp)} · {one.automatic ? "by itself" : "by hand"}
              </p>
            </div>
            {one.undone_at ? (
              <Badge>Taken back</Badge>
            ) : (
              <Badge tone={one.success ? "good" : "danger"}>{one.success ? "Done" : "Failed"}</Badge>
            )}
          </li>
        ))}
      </ol>
      {words && (
        <div className="mt-3 flex flex-wrap items-end gap-2 border-t border-edge pt-3">
          <div className="w-64 max-w-full">
            <SelectField
              label="What fails"
              value={failure}
              choices={words.failure_types.map((value) => ({
                value,
                label: words.failure_type_descriptions[value] ?? plain(value),
              }))}
              onChange={setFailure}
              disabled={!allowed}
            />
          </div>
          <div className="w-56 max-w-full">
            <SelectField
              label="What to do"
              value={action}
              choices={words.recovery_actions.map((value) => ({ value, label: plain(value) }))}
              onChange={setAction}
              disabled={!allowed}
            />
          </div>
          <Button icon={Wrench} disabled={!allowed || trigger.isPending} onClick={() => trigger.mutate()}>
            Do it now
          </Button>
          <p className="min-w-48 flex-1 text-xs text-soft">{words.recovery_action_descriptions[action]}</p>
        </div>
      )}
    </Panel>
  );
}
