/** The queue as the page sees it, and what can be done to a task. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { create } from "zustand";
import { counted } from "@/app/format";
import { api, asProblem, data } from "@/http/client";
import { KEYS } from "@/http/queries";
import { usePolling } from "@/live/connection";
import type { Queue, Task } from "@/live/reducer";
import { say } from "@/ui/toasts";

/** Most tasks that the page lists; the server keeps more. */
const LISTED = 1000;
const POLL_MS = 5_000;

export function useQueue() {
  const refetchInterval = usePolling(POLL_MS);
  return useQuery({
    queryKey: KEYS.queue,
    queryFn: () => data(api.GET("/api/v1/queue", { params: { query: { limit: LISTED } } })),
    refetchInterval,
  });
}

const RANK: Record<string, number> = { processing: 0, pending: 1, paused: 2, failed: 3, cancelled: 4, completed: 5 };

/** The tasks in the order in which people think of them: what runs, what comes next, what is held, what ended. */
export function inOrder(tasks: readonly Task[]): Task[] {
  return [...tasks].sort((a, b) => {
    const rank = (RANK[a.status] ?? 9) - (RANK[b.status] ?? 9);
    if (rank) return rank;
    if (a.status === "pending") return (a.queue_position ?? Infinity) - (b.queue_position ?? Infinity);
    return b.created_at.localeCompare(a.created_at);
  });
}

/** Whether a task still has something to do. */
export function unfinished(task: Pick<Task, "status">): boolean {
  return task.status === "processing" || task.status === "pending" || task.status === "paused";
}

const STAGES: Record<string, string> = {
  initializing: "Starting",
  downloading_model: "Downloading the model",
  loading_model: "Loading the model",
  preparing_inputs: "Reading prompt and image",
  generating: "Denoising",
  post_processing: "Decoding",
  saving: "Saving",
};

/** What a task does now or waits for, in a few words. */
export function doing(task: Task): string {
  if (task.status === "processing") {
    if (task.cancel_requested) return "Stops at its next step";
    if (task.pause_requested) return "Pauses at its next step";
    const stage = STAGES[task.stage ?? ""] ?? "Starting";
    const step =
      task.stage === "generating" && task.total_steps ? ` · step ${task.current_step ?? 0} of ${task.total_steps}` : "";
    return task.message && task.stage !== "generating" ? task.message : stage + step;
  }
  if (task.status === "pending") {
    if (task.message) return task.message;
    return task.queue_position ? `Number ${task.queue_position} in the queue` : "Waiting";
  }
  if (task.status === "failed") return task.error_message ?? "Failed";
  return (
    task.message ?? { paused: "Paused", cancelled: "Cancelled", completed: "Finished" }[task.status] ?? task.status
  );
}

/** Tasks that ended until then are not shown: they are about to leave the list, unless somebody takes that back. */
const useHidden = create(() => ({ until: "" }));

export function useShownTasks(): Task[] {
  const { data: queue } = useQueue();
  const { until } = useHidden();
  return inOrder(queue?.tasks ?? []).filter(
    (task) => unfinished(task) || !task.completed_at || task.completed_at > until,
  );
}

/** Hides the ended tasks, and calls `clear` with the time until which they ended once the way back is gone. */
export function hideEnded(ended: readonly Task[], clear: (until: string) => void): void {
  const until = ended.reduce((latest, { completed_at: at }) => (at && at > latest ? at : latest), "");
  useHidden.setState({ until });
  say({
    title: `${counted(ended.length, "ended task")} left the list`,
    text: "The clips stay in the gallery.",
    action: { label: "Undo", run: () => useHidden.setState({ until: "" }) },
    gone: () => clear(until),
  });
}

type Deed = "cancel" | "pause" | "resume" | "retry";

export function failed(error: unknown): void {
  const { message, suggestions } = asProblem(error);
  say({ title: message, text: suggestions[0], urgent: true });
}

/** Everything that can be done to tasks; each deed tells of its failure by itself. */
export function useTaskDeeds() {
  const cache = useQueryClient();
  const refresh = () => cache.invalidateQueries({ queryKey: KEYS.queue });
  const options = { onError: failed, onSettled: refresh };

  const deed = useMutation({
    ...options,
    mutationFn: ({ task, what }: { task: Task; what: Deed }) =>
      data(api.POST(`/api/v1/queue/{task_id}/${what}`, { params: { path: { task_id: task.id } } })),
  });
  const move = useMutation({
    ...options,
    mutationFn: ({ task, position }: { task: Task; position: number }) =>
      data(api.POST("/api/v1/queue/{task_id}/move", { params: { path: { task_id: task.id } }, body: { position } })),
    onMutate: ({ task, position }) => {
      cache.setQueryData<Queue>(KEYS.queue, (queue) => queue && moved(queue, task.id, position));
    },
  });
  const duplicate = useMutation({
    ...options,
    mutationFn: (task: Task) =>
      data(
        api.POST("/api/v1/queue/{task_id}/duplicate", { params: { path: { task_id: task.id } }, body: {} as never }),
      ),
    onSuccess: () => say({ title: "Queued again" }),
  });
  const edit = useMutation({
    onSettled: refresh,
    mutationFn: ({ task, changes }: { task: Task; changes: Record<string, unknown> }) =>
      data(api.PATCH("/api/v1/queue/{task_id}", { params: { path: { task_id: task.id } }, body: changes as never })),
  });
  const remove = useMutation({
    ...options,
    mutationFn: (task: Task) => data(api.DELETE("/api/v1/queue/{task_id}", { params: { path: { task_id: task.id } } })),
  });
  const pauseAll = useMutation({
    ...options,
    mutationFn: (paused: boolean) =>
      data(paused ? api.POST("/api/v1/queue/pause", {}) : api.POST("/api/v1/queue/resume", {})) as Promise<unknown>,
  });
  const clear = useMutation({
    ...options,
    mutationFn: (until: string) => data(api.POST("/api/v1/queue/clear", { body: { ended_until: until } })),
    onError: (error) => {
      useHidden.setState({ until: "" });
      failed(error);
    },
  });
  return { deed, move, duplicate, edit, remove, pauseAll, clear };
}

/** Returns the queue with a waiting task at another place; places count from 1. */
export function moved(queue: Queue, id: string, position: number): Queue {
  const waiting = inOrder(queue.tasks).filter((task) => task.status === "pending");
  const task = waiting.find((one) => one.id === id);
  if (!task) return queue;
  const order = waiting.filter((one) => one.id !== id);
  order.splice(Math.max(0, position - 1), 0, task);
  const places = new Map(order.map((one, index) => [one.id, index + 1]));
  return {
    ...queue,
    tasks: queue.tasks.map((one) => (places.has(one.id) ? { ...one, queue_position: places.get(one.id) } : one)),
  };
}
