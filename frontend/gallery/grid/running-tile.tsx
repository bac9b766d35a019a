/** A clip that is being made, as a tile of its own: the newest preview, what happens, and how far it is. */

import { useEffect, useRef, useState } from "react";
import { duration } from "@/app/format";
import { place } from "@/http/client";
import type { Task } from "@/live/reducer";
import { doing, useQueue } from "@/tasks/queue";
import { ProgressBar } from "@/ui/status";
import { withParameter } from "../media";
import type { IdList } from "./id-list";
import { CAPTION } from "./tile";

/** How long a finished task stays until the list has its clip, in milliseconds. */
const PATIENCE = 8_000;

/** The tasks that run, and those that just finished and are not in the list yet: no tile vanishes between the two. */
export function useRunning(ids: IdList | undefined, shown: boolean): Task[] {
  const { data: queue } = useQueue();
  const seen = useRef(new Map<string, number>());
  const [, look] = useState(0);
  const tasks = shown ? (queue?.tasks ?? []) : [];
  const now = Date.now();
  const running = tasks.filter((task) => {
    if (task.status === "processing") {
      seen.current.set(task.id, now);
      return true;
    }
    const since = seen.current.get(task.id);
    if (since === undefined) return false;
    if (task.status === "completed" && now - since < PATIENCE && ids && ids.indexOf(task.id) < 0) return true;
    seen.current.delete(task.id);
    return false;
  });
  const finishing = running.some((task) => task.status === "completed");
  useEffect(() => {
    if (!finishing) return;
    const timer = setTimeout(() => look((count) => count + 1), PATIENCE);
    return () => clearTimeout(timer);
  }, [finishing]);
  return running;
}

type RunningTileProps = { task: Task; index: number; width: number; height: number; column: number; current: boolean };

export function RunningTile({ task, index, width, height, column, current }: RunningTileProps) {
  const done = task.status === "completed";
  const percent = done ? 100 : task.progress_percent;
  const left = task.estimated_time_remaining;
  const words = done ? "Finished" : `${doing(task)} · ${Math.floor(percent)} %`;
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot place its cells by arithmetic
    <div
      role="gridcell"
      tabIndex={current ? 0 : -1}
      aria-colindex={column + 1}
      aria-label={`Being made: ${task.prompt}, ${words}`}
      data-testid="running-card"
      data-index={index}
      data-task={task.id}
      className="absolute top-0 cursor-pointer rounded-lg -outline-offset-2!"
      style={{ width, height, left: 0, transform: `translateX(${column * (width + 12)}px)` }}
    >
      <div
        className="relative flex items-end overflow-hidden rounded-lg border-2 border-accent bg-raised"
        style={{ height: height - CAPTION }}
      >
        {task.preview_url && !done ? (
          <img
            src={withParameter(place(task.preview_url), "step", String(task.current_step ?? 0))}
            alt="Preview"
            data-testid="running-preview"
            className="absolute inset-0 size-full object-contain"
          />
        ) : (
          <div aria-hidden className="absolute inset-0 animate-pulse bg-tint" />
        )}
        <div className="relative w-full bg-panel/90 px-2 py-1.5">
          <p className="mb-1 truncate text-xs">
            {words}
            {left != null && !done && ` · ${duration(left)} left`}
          </p>
          <ProgressBar value={percent} label={`Progress of ${task.prompt}`} />
        </div>
      </div>
      <p className="mt-1 truncate leading-snug">{task.prompt}</p>
      <p className="truncate text-xs text-soft">
        {task.model} · {task.resolution}
      </p>
    </div>
  );
}
