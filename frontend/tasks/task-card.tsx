/** One task in the queue: picture, prompt, what it does, and everything that can be done to it. */

import { useNavigate } from "@tanstack/react-router";
import {
  ArrowDown,
  ArrowUp,
  ArrowUpToLine,
  Copy,
  EllipsisVertical,
  Eye,
  Pause,
  Pencil,
  Play,
  RotateCw,
  Trash2,
  X,
} from "lucide-react";
import { duration } from "@/app/format";
import { place } from "@/http/client";
import type { Task } from "@/live/reducer";
import { Button, IconButton } from "@/ui/button";
import { ActionMenu, type Entry } from "@/ui/menu";
import { Badge, ProgressBar, type Tone } from "@/ui/status";
import { NextSteps } from "./next-steps";
import { doing, unfinished, useTaskDeeds } from "./queue";

const TONES: Record<string, Tone> = {
  processing: "accent",
  paused: "warn",
  failed: "danger",
  completed: "good",
};
const NAMES: Record<string, string> = {
  processing: "running",
  pending: "waiting",
};

type TaskCardProps = { task: Task; waiting: number; onEdit: (task: Task) => void };

export function TaskCard({ task, waiting, onEdit }: TaskCardProps) {
  const { deed, move, duplicate, remove } = useTaskDeeds();
  const navigate = useNavigate();
  const position = task.queue_position ?? 0;
  const act = (what: "cancel" | "pause" | "resume" | "retry") => deed.mutate({ task, what });
  const editable = task.status === "pending" || task.status === "paused";
  const entries: Entry[] = [
    ...(task.status === "pending"
      ? ([
          {
            label: "Run next",
            icon: ArrowUpToLine,
            disabled: position <= 1,
            run: () => move.mutate({ task, position: 1 }),
          },
          {
            label: "Move up",
            icon: ArrowUp,
            disabled: position <= 1,
            run: () => move.mutate({ task, position: position - 1 }),
          },
          {
            label: "Move down",
            icon: ArrowDown,
            disabled: position >= waiting,
            run: () => move.mutate({ task, position: position + 1 }),
          },
          "line",
        ] as Entry[])
      : []),
    ...(editable ? [{ label: "Edit", icon: Pencil, run: () => onEdit(task) }] : []),
    { label: "Queue again", icon: Copy, run: () => duplicate.mutate(task) },
    ...(task.output_path
      ? [
          {
            label: "Show in the gallery",
            icon: Eye,
            run: () => void navigate({ to: "/gallery", search: { clip: task.id } }),
          },
        ]
      : []),
    ...(unfinished(task)
      ? []
      : [{ label: "Remove from the list", icon: Trash2, danger: true, run: () => remove.mutate(task) }]),
  ];
  const left = task.estimated_time_remaining;
  return (
    <article
      data-testid="task-card"
      data-task={task.id}
      aria-label={task.prompt}
      className="flex gap-3 rounded-lg border border-edge bg-panel p-2.5"
    >
      <Picture task={task} />
      <div className="min-w-0 flex-1">
        <div className="flex items-start gap-2">
          <p className="line-clamp-2 flex-1 leading-snug" title={task.prompt}>
            {task.prompt}
          </p>
          <Badge testId="task-status" tone={TONES[task.status]}>
            {NAMES[task.status] ?? task.status}
          </Badge>
        </div>
        <p className="mt-0.5 text-xs text-soft">
          {asked(task)} · {task.resolution} · {duration(task.num_frames / task.fps)}
          {task.mock && <strong className="text-warn"> · mock</strong>}
        </p>
        {task.status === "processing" && (
          <div className="mt-1.5">
            <ProgressBar testId="progress-bar" value={task.progress_percent} label={`Progress of ${task.prompt}`} />
          </div>
        )}
        <p className={task.status === "failed" ? "mt-1 text-xs text-danger" : "mt-1 text-xs text-soft"}>
          {doing(task)}
          {task.status === "processing" && ` · ${Math.floor(task.progress_percent)} %`}
          {left != null && task.status === "processing" && ` · ${duration(left)} left`}
          {task.next_retry_at && ` · next attempt at ${new Date(task.next_retry_at).toLocaleTimeString()}`}
        </p>
        {task.status === "failed" && <NextSteps task={task} />}
        <div className="mt-1.5 flex items-center gap-1">
          {(task.status === "processing" || task.status === "pending") && (
            <IconButton
              size="small"
              icon={Pause}
              label="Pause this task"
              disabled={task.pause_requested}
              onClick={() => act("pause")}
            />
          )}
          {task.status === "paused" && (
            <IconButton size="small" icon={Play} label="Resume this task" onClick={() => act("resume")} />
          )}
          {(task.status === "failed" || task.status === "cancelled") && (
            <Button size="small" icon={RotateCw} data-testid="retry-button" onClick={() => act("retry")}>
              Retry
            </Button>
          )}
          {unfinished(task) && (
            <IconButton
              size="small"
              icon={X}
              label="Cancel this task"
              data-testid="cancel-button"
              disabled={task.cancel_requested}
              onClick={() => act("cancel")}
            />
          )}
          <span className="flex-1" />
          <ActionMenu
            trigger={
              <IconButton size="small" icon={EllipsisVertical} label="More for this task" data-testid="task-menu" />
            }
            entries={entries}
          />
        </div>
      </div>
    </article>
  );
}

/** The model that was asked for, and the one that ran where it is another. */
function asked(task: Task): string {
  return task.model_used && task.model_used !== task.model ? `${task.model} → ${task.model_used}` : task.model;
}

function Picture({ task }: { task: Task }) {
  const look = "size-16 shrink-0 rounded-md bg-raised object-cover";
  // Its video may have been deleted since.
  if (task.output_path) {
    return <img src={place(`/api/v1/outputs/${task.id}/thumbnail`)} alt="" loading="lazy" className={look} />;
  }
  if (task.preview_url && task.status === "processing") {
    return <img src={`${place(task.preview_url)}?step=${task.current_step ?? 0}`} alt="Preview" className={look} />;
  }
  return <div aria-hidden className={look} />;
}
