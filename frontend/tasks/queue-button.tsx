/** The state of the queue, from everywhere; opens it. */

import { ListVideo, Pause } from "lucide-react";
import { useShown } from "@/app/commands";
import { openWindow } from "@/app/window";
import { Tip } from "@/ui/tooltip";
import { useQueue } from "./queue";

export function QueueButton() {
  const { data: queue } = useQueue();
  const shortcut = useShown("window.queue");
  const running = queue?.tasks.find((task) => task.status === "processing");
  const waiting = queue?.pending_tasks ?? 0;
  const words = [running && `${Math.floor(running.progress_percent)} %`, waiting && `${waiting} waiting`]
    .filter(Boolean)
    .join(" · ");
  const label = words ? `Queue: ${words}` : "Queue: empty";
  return (
    <Tip text={label} shortcut={shortcut}>
      <button
        type="button"
        aria-label={label}
        data-testid="queue-button"
        onClick={() => openWindow("queue")}
        className="fixed top-2.5 right-3 z-30 flex h-9 items-center gap-2 rounded-full border border-control bg-panel px-3 shadow-sm hover:bg-raised"
      >
        {queue?.paused ? (
          <Pause aria-hidden className="size-4 text-warn" />
        ) : (
          <ListVideo aria-hidden className="size-4" />
        )}
        <span className="tabular-nums">{words || "Queue"}</span>
      </button>
    </Tip>
  );
}
