/**
 * What a live message changes in the cache. `task_update` and progress are written into the lists at once; what only the
 * server can compute, such as places in the queue and reasons for waiting, is read anew, at most once in a while.
 */

import type { QueryClient } from "@tanstack/react-query";
import type { Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import type { DetailedProgress, Message, TaskUpdate } from "./messages";

export type Queue = Schemas["QueueStatus"];
export type Task = Schemas["TaskInfo"];

/** States in which a task does nothing more by itself. */
const ENDED: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

function changed(queue: Queue, id: string, change: (task: Task) => Task): Queue {
  let found = false;
  const tasks = queue.tasks.map((task) => {
    if (task.id !== id) return task;
    found = true;
    return change(task);
  });
  return found ? { ...queue, tasks } : queue;
}

/** Returns the queue with a task's new state; the same object if it has no such task. */
export function withUpdate(queue: Queue, update: TaskUpdate): Queue {
  return changed(queue, update.task_id, (task) => ({
    ...task,
    status: update.status,
    progress_percent: update.progress,
    progress: Math.floor(update.progress),
    message: update.message ?? (ENDED.has(update.status) ? null : task.message),
    estimated_time_remaining: update.status === "processing" ? task.estimated_time_remaining : null,
  }));
}

/** Returns the queue with what a running task does now. A late report never moves a task back or wakes one that ended. */
export function withProgress(queue: Queue, report: DetailedProgress): Queue {
  return changed(queue, report.task_id, (task) =>
    task.status !== "processing"
      ? task
      : {
          ...task,
          stage: report.stage,
          progress_percent: Math.max(task.progress_percent, report.progress),
          current_step: report.current_step ?? task.current_step,
          total_steps: report.total_steps ?? task.total_steps,
          message: report.message ?? task.message,
          estimated_time_remaining: report.estimated_time_remaining,
        },
  );
}

/** Reads entries of the cache anew, each at most once in an interval, and always once after the last wish. */
export class Refresher {
  private readonly waiting = new Map<string, ReturnType<typeof setTimeout>>();

  constructor(
    private readonly cache: QueryClient,
    private readonly interval = 700,
  ) {}

  wish(key: readonly unknown[]): void {
    const name = JSON.stringify(key);
    if (this.waiting.has(name)) return;
    this.waiting.set(
      name,
      setTimeout(() => {
        this.waiting.delete(name);
        void this.cache.invalidateQueries({ queryKey: key });
      }, this.interval),
    );
  }
}

/** Applies one message to the cache. */
export function apply(cache: QueryClient, refresh: Refresher, message: Message): void {
  switch (message.type) {
    case "task_update": {
      const { task_id, status } = message.data;
      cache.setQueryData<Queue>(KEYS.queue, (queue) => queue && withUpdate(queue, message.data));
      refresh.wish(KEYS.queue);
      refresh.wish(KEYS.task(task_id));
      if (status === "completed") refresh.wish(KEYS.outputs);
      break;
    }
    case "detailed_generation_progress":
      cache.setQueryData<Queue>(KEYS.queue, (queue) => queue && withProgress(queue, message.data));
      break;
    case "queue_update":
      refresh.wish(KEYS.queue);
      break;
    case "output_update":
      refresh.wish(KEYS.outputs);
      refresh.wish(KEYS.queue); // a task says whether its video is still there
      break;
    case "system_stats_update":
      cache.setQueryData(KEYS.stats, message.data);
      break;
    case "download_progress_update":
      refresh.wish(KEYS.downloads);
      break;
    case "download_status_change":
    case "model_download_complete":
      refresh.wish(KEYS.downloads);
      refresh.wish(KEYS.models);
      break;
    case "model_status_update":
      refresh.wish(KEYS.models);
      break;
    case "system_health_report":
      cache.setQueryData(KEYS.health, message.data);
      break;
    case "replay_gap":
      void cache.invalidateQueries();
      break;
  }
}
