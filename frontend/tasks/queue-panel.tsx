/** The list of tasks, of which only those in sight are drawn. Waiting ones are moved by dragging or from their menu. */

import { monitorForElements } from "@atlaskit/pragmatic-drag-and-drop/element/adapter";
import { useVirtualizer } from "@tanstack/react-virtual";
import { ListVideo, Pause, Play } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { counted } from "@/app/format";
import { ProblemNote } from "@/http/problem-note";
import type { Task } from "@/live/reducer";
import { Button } from "@/ui/button";
import { Empty, Note, Skeleton } from "@/ui/status";
import { DraggableTask } from "./draggable-task";
import { hideEnded, unfinished, useQueue, useShownTasks, useTaskDeeds } from "./queue";
import { TaskCard } from "./task-card";
import { TaskEditor } from "./task-editor";

/** Height of a card before it is measured, in pixels. */
const CARD = 136;

export function QueuePanel() {
  const { data: queue, error, refetch } = useQueue();
  const { move, pauseAll, clear } = useTaskDeeds();
  const [edited, setEdited] = useState<Task | null>(null);
  const list = useRef<HTMLDivElement>(null);
  const tasks = useShownTasks();
  const waiting = tasks.filter((task) => task.status === "pending").length;
  const rows = useVirtualizer({
    count: tasks.length,
    getScrollElement: () => list.current,
    estimateSize: () => CARD,
    getItemKey: (index) => tasks[index]?.id ?? index,
    overscan: 4,
    gap: 8,
  });

  const newest = useRef(tasks);
  newest.current = tasks;
  const moveNow = move.mutate;
  useEffect(
    () =>
      monitorForElements({
        canMonitor: ({ source }) => source.data.kind === "task",
        onDrop: ({ source, location }) => {
          const target = location.current.dropTargets[0]?.data;
          const task = newest.current.find((one) => one.id === source.data.id);
          if (task && target && target.id !== task.id) moveNow({ task, position: Number(target.position) });
        },
      }),
    [moveNow],
  );

  if (error && !queue) return <ProblemNote error={error} retry={() => void refetch()} />;
  if (!queue) {
    return (
      <div className="space-y-2">
        <Skeleton className="h-32" />
        <Skeleton className="h-32" />
      </div>
    );
  }
  const ended = tasks.filter((task) => !unfinished(task));
  return (
    <div className="flex h-full min-h-0 flex-col gap-2">
      <div className="flex flex-wrap items-center gap-2">
        <p className="flex-1 text-soft" data-testid="queue-summary">
          {counted(queue.processing_tasks, "running", "running")}, {waiting} waiting
          {queue.paused_tasks > 0 && `, ${queue.paused_tasks} paused`}
        </p>
        <Button
          size="small"
          icon={queue.paused ? Play : Pause}
          disabled={pauseAll.isPending}
          onClick={() => pauseAll.mutate(!queue.paused)}
        >
          {queue.paused ? "Resume the queue" : "Pause the queue"}
        </Button>
        <Button size="small" disabled={ended.length === 0} onClick={() => hideEnded(ended, clear.mutate)}>
          Clear ended
        </Button>
      </div>
      {queue.paused && <Note tone="warn">The queue is paused: what runs ends, and nothing new begins.</Note>}
      {tasks.length === 0 && (
        <Empty icon={ListVideo} title="Nothing in the queue">
          Queue a night's work: it survives restarts, and the clips are here in the morning.
        </Empty>
      )}
      <section
        ref={list}
        aria-label="Tasks"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a place that scrolls has to be reached by keyboard
        tabIndex={0}
        className="min-h-0 flex-1 overflow-y-auto"
        data-testid="task-list"
      >
        <div className="relative" style={{ height: rows.getTotalSize() }}>
          {rows.getVirtualItems().map((row) => {
            const task = tasks[row.index];
            if (!task) return null;
            return (
              <div
                key={row.key}
                ref={rows.measureElement}
                data-index={row.index}
                className="absolute inset-x-0 top-0 pr-1"
                style={{ transform: `translateY(${row.start}px)` }}
              >
                <DraggableTask task={task}>
                  <TaskCard task={task} waiting={waiting} onEdit={setEdited} />
                </DraggableTask>
              </div>
            );
          })}
        </div>
      </section>
      {edited && <TaskEditor task={edited} onClose={() => setEdited(null)} />}
    </div>
  );
}
