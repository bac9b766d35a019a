/** Who uses the card: what runs now, open connections, keys, and the state of messages to webhooks. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Webhook } from "lucide-react";
import { counted, duration, moment } from "@/app/format";
import { api, asProblem, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { Button } from "@/ui/button";
import { Badge, Panel, ProgressBar, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { useAllowed } from "./session";

const POLL_MS = 3_000;
const DELIVERIES = ["deliveries"];
const TONES = { pending: "accent", delivered: "good", failed: "danger" } as const;

export function UsePart() {
  const admin = useAllowed("admin");
  const running = useQuery({
    queryKey: ["running"],
    queryFn: () => data(api.GET("/api/v1/performance/operations/active")),
    refetchInterval: POLL_MS,
  });
  const sockets = useQuery({
    queryKey: ["sockets"],
    queryFn: () => data(api.GET("/api/v1/ws/stats")),
    refetchInterval: POLL_MS,
  });
  const keys = useQuery({
    queryKey: ["keys"],
    queryFn: () => data(api.GET("/api/v1/keys")),
    enabled: admin,
    refetchInterval: 10 * POLL_MS,
  });
  if (running.error && !running.data) return <ProblemNote error={running.error} retry={() => void running.refetch()} />;
  if (!running.data || !sockets.data || (admin && !keys.data && !keys.error)) return <Skeleton className="h-96" />;
  const tasks = running.data.data.operations;
  const topics = Object.entries(sockets.data.subscription_counts).filter(([, count]) => count > 0);
  const valid = (keys.data?.keys ?? []).filter((key) => key.state === "valid");
  return (
    <div className="space-y-4">
      <Panel title="Running now">
        {tasks.length === 0 && <p className="text-soft">Nothing runs.</p>}
        <ul className="space-y-3">
          {tasks.map((task) => (
            <li key={task.task_id} className="space-y-1">
              <p className="flex flex-wrap justify-between gap-2">
                <span className="font-medium">{task.model_type}</span>
                <span className="text-soft">
                  {task.elapsed_seconds != null && `${duration(task.elapsed_seconds)} so far`}
                  {task.estimated_time_remaining != null && ` · ${duration(task.estimated_time_remaining)} left`}
                </span>
              </p>
              <ProgressBar value={task.progress_percent} label={`Task of ${task.model_type}`} />
            </li>
          ))}
        </ul>
      </Panel>
      <Panel title="Open connections">
        <p data-testid="connections">
          {counted(sockets.data.active_connections, "client")}{" "}
          {sockets.data.active_connections === 1 ? "listens" : "listen"} by WebSocket, this page among them.
        </p>
        <details className="text-xs text-soft">
          <summary>What they listen to</summary>
          {topics.map(([topic, count]) => `${topic.replaceAll("_", " ")} ${count}`).join(" · ")}
        </details>
      </Panel>
      {admin && (
        <Panel title="Keys that are used">
          {valid.length === 0 && (
            <p className="text-soft">This server has no valid stored key: everything runs as one user.</p>
          )}
          <ul>
            {[...valid]
              .sort((a, b) => (b.last_used_at ?? "").localeCompare(a.last_used_at ?? ""))
              .map((key) => (
                <li
                  key={key.id}
                  className="flex flex-wrap justify-between gap-2 border-t border-edge py-2 first:border-t-0"
                >
                  <span className="font-medium">{key.name}</span>
                  <span className="text-soft">
                    {key.scopes.join(", ")} · {key.last_used_at ? `used ${moment(key.last_used_at)}` : "never used"}
                  </span>
                </li>
              ))}
          </ul>
        </Panel>
      )}
      <Webhooks />
    </div>
  );
}

function Webhooks() {
  const cache = useQueryClient();
  const allowed = useAllowed("generate");
  const status = useQuery({ queryKey: ["webhooks"], queryFn: () => data(api.GET("/api/v1/webhooks")) });
  const deliveries = useQuery({
    queryKey: DELIVERIES,
    queryFn: () => data(api.GET("/api/v1/webhooks/deliveries", { params: { query: { limit: 20 } } })),
    refetchInterval: 3 * POLL_MS,
  });
  const again = useMutation({
    mutationFn: (id: string) =>
      data(api.POST("/api/v1/webhooks/deliveries/{delivery_id}/redeliver", { params: { path: { delivery_id: id } } })),
    onSuccess: () => say({ title: "It is sent again" }),
    onError: (error) => say({ title: asProblem(error).message, urgent: true }),
    onSettled: () => cache.invalidateQueries({ queryKey: DELIVERIES }),
  });
  if (!status.data || !deliveries.data) return <Skeleton className="h-40" />;
  const { enabled, pending, delivered, failed } = status.data;
  return (
    <Panel title="Messages to webhooks">
      <p className="flex items-center gap-2 text-soft">
        <Webhook aria-hidden className="size-4" />
        {enabled
          ? `${pending} wait, ${delivered} arrived, ${failed} were given up.`
          : "Off: the server's owner allows no host (setting outbound_hosts)."}
      </p>
      <ul className="mt-2">
        {deliveries.data.deliveries.map((one) => (
          <li key={one.id} className="flex flex-wrap items-center gap-2 border-t border-edge py-2">
            <Badge tone={TONES[one.state]}>{one.state}</Badge>
            <span className="min-w-0 flex-1 break-words">
              {one.type} to {one.host}
              {one.reason && <span className="block text-xs text-soft">{one.reason}</span>}
            </span>
            <span className="text-xs text-soft">
              {moment(one.created_at)} · {counted(one.attempts, "attempt")}
            </span>
            {one.state === "failed" && (
              <Button size="small" disabled={!allowed || again.isPending} onClick={() => again.mutate(one.id)}>
                Send again
              </Button>
            )}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
