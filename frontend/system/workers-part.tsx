/** The workers: what each does and holds, on which device and why, and whether it takes tasks. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Cpu, Pause, Play } from "lucide-react";
import { moment } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { Button } from "@/ui/button";
import { Facts } from "@/ui/page";
import { Badge, Empty, Note, Panel, Skeleton, type Tone } from "@/ui/status";
import { say } from "@/ui/toasts";
import { useAllowed } from "./session";

const POLL_MS = 5_000;
const WORKERS = ["workers"];

const STATES: Record<Schemas["WorkerState"], [string, Tone]> = {
  loading: ["Loading", "accent"],
  idle: ["Idle", "plain"],
  busy: ["Making a clip", "good"],
  yielding: ["Gives way to other programs", "warn"],
  waiting: ["Waits", "warn"],
};

export const useIntegration = () =>
  useQuery({
    queryKey: ["integration"],
    queryFn: () => data(api.GET("/api/v1/models/integration/status")),
    refetchInterval: POLL_MS,
  });

export function WorkersPart() {
  const cache = useQueryClient();
  const allowed = useAllowed("admin");
  const workers = useQuery({
    queryKey: WORKERS,
    queryFn: () => data(api.GET("/api/v1/workers")),
    refetchInterval: POLL_MS,
  });
  const details = useIntegration();
  const models = useQuery({
    queryKey: ["models", "details"],
    queryFn: () => data(api.GET("/api/v1/models/status/detailed")),
  });
  const change = useMutation({
    mutationFn: (wanted: { device?: string; now?: boolean; resume?: boolean }) => {
      const { resume, ...body } = wanted;
      return data(
        resume
          ? api.POST("/api/v1/workers/resume", { body: { device: body.device } })
          : api.POST("/api/v1/workers/drain", { body: { device: body.device, now: body.now ?? false } }),
      );
    },
    onSuccess: ({ message }) => say({ title: message }),
    onError: (error) => say({ title: asProblem(error).message, urgent: true }),
    onSettled: () => cache.invalidateQueries({ queryKey: WORKERS }),
  });
  if (workers.error && !workers.data) return <ProblemNote error={workers.error} retry={() => void workers.refetch()} />;
  if (!workers.data || !details.data) return <Skeleton className="h-72" />;
  const held = Object.values(models.data?.models ?? {});
  const gone = workers.data.drained.filter((device) => !workers.data.workers.some((one) => one.device === device));
  return (
    <div className="space-y-3">
      {workers.data.workers.length === 0 && (
        <Empty icon={Cpu} title="No worker is alive">
          The queue keeps what you send. Start one with: wan22 worker
        </Empty>
      )}
      {workers.data.workers.map((worker) => {
        const more = details.data.workers.find((one) => one.worker_id === worker.id);
        const [label, tone] = STATES[worker.state];
        const model = held.find((one) => one.loaded_by.includes(worker.id))?.model_id;
        return (
          <Panel
            key={worker.id}
            title={worker.device}
            aside={
              <span className="flex flex-wrap justify-end gap-1">
                {worker.drained && <Badge tone="warn">Takes no task</Badge>}
                <Badge tone={tone}>{label}</Badge>
              </span>
            }
          >
            <div className="space-y-3" data-testid="worker">
              {worker.detail && <p>{worker.detail}</p>}
              <Facts
                facts={[
                  ["Holds", model ? `${model} in memory` : "No model in memory"],
                  more?.device_reason ? ["Device", more.device_reason] : null,
                  more?.precision ? ["Computes in", more.precision] : null,
                  more?.attention ? ["Attention", more.attention] : null,
                  ["Seen", moment(worker.seen_at)],
                  ["Process", worker.id],
                ]}
              />
              {(more?.warnings ?? []).map((warning) => (
                <Note key={warning} tone="warn">
                  {warning}
                </Note>
              ))}
              <div className="flex flex-wrap gap-2">
                {worker.drained ? (
                  <Button
                    size="small"
                    kind="primary"
                    icon={Play}
                    disabled={!allowed || change.isPending}
                    onClick={() => change.mutate({ device: worker.device, resume: true })}
                  >
                    Take tasks again
                  </Button>
                ) : (
                  <>
                    <Button
                      size="small"
                      icon={Pause}
                      disabled={!allowed || change.isPending}
                      onClick={() => change.mutate({ device: worker.device })}
                    >
                      Drain after this task
                    </Button>
                    {worker.state === "busy" && (
                      <Button
                        size="small"
                        disabled={!allowed || change.isPending}
                        onClick={() => change.mutate({ device: worker.device, now: true })}
                      >
                        Drain now, keep its state
                      </Button>
                    )}
                  </>
                )}
              </div>
            </div>
          </Panel>
        );
      })}
      {gone.map((device) => (
        <Panel key={device} title={device} aside={<Badge tone="warn">Takes no task, no worker</Badge>}>
          <Button
            size="small"
            icon={Play}
            disabled={!allowed || change.isPending}
            onClick={() => change.mutate({ device, resume: true })}
          >
            Take tasks again
          </Button>
        </Panel>
      ))}
    </div>
  );
}
