/** Lets a waiting task be dragged to the place of another one. The same is in its menu, for the keyboard. */

import { combine } from "@atlaskit/pragmatic-drag-and-drop/combine";
import { draggable, dropTargetForElements } from "@atlaskit/pragmatic-drag-and-drop/element/adapter";
import { type ReactNode, useEffect, useRef, useState } from "react";
import type { Task } from "@/live/reducer";
import { classes } from "@/ui/classes";

export function DraggableTask({ task, children }: { task: Task; children: ReactNode }) {
  const element = useRef<HTMLDivElement>(null);
  const [over, setOver] = useState(false);
  const { id, status, queue_position: position } = task;
  useEffect(() => {
    if (!element.current || status !== "pending") return;
    return combine(
      draggable({ element: element.current, getInitialData: () => ({ kind: "task", id }) }),
      dropTargetForElements({
        element: element.current,
        getData: () => ({ id, position: position ?? 1 }),
        canDrop: ({ source }) => source.data.kind === "task" && source.data.id !== id,
        onDragEnter: () => setOver(true),
        onDragLeave: () => setOver(false),
        onDrop: () => setOver(false),
      }),
    );
  }, [id, status, position]);
  return (
    <div
      ref={element}
      className={classes("rounded-lg", status === "pending" && "cursor-grab", over && "ring-2 ring-accent")}
    >
      {children}
    </div>
  );
}
