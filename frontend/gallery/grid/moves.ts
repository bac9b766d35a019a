/** Arrows and their like move through the grid; from nowhere in particular, they enter it. */

import { type RefObject, useEffect } from "react";
import { windowOpen } from "@/app/commands";
import type { Move } from "./layout";

const MOVES: Record<string, Move> = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
  PageUp: "pageup",
  PageDown: "pagedown",
  Home: "home",
  End: "end",
};

/** Calls `move` while `enabled`; with Shift the selection is extended. */
export function useMoves(
  enabled: boolean,
  grid: RefObject<HTMLElement | null>,
  move: (where: Move, extend: boolean) => void,
): void {
  useEffect(() => {
    if (!enabled) return;
    function listen(event: KeyboardEvent) {
      const where = MOVES[event.key];
      if (!where || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      const { target } = event;
      const inside = target instanceof Node && (grid.current?.contains(target) || target.contains(grid.current));
      if (!inside || windowOpen() || document.querySelector("[role=menu]")) return;
      event.preventDefault();
      move(where, event.shiftKey);
    }
    window.addEventListener("keydown", listen);
    return () => window.removeEventListener("keydown", listen);
  }, [enabled, grid, move]);
}
