/** Which clips are selected, and which one the keyboard is at. Belongs to the page, not to the server or the address. */

import { create } from "zustand";

type Selection = {
  chosen: ReadonlySet<string>;
  /** Id of the tile that keys act on; empty before the first. */
  focus: string;
  /** Where a range begins. */
  anchor: string;
};

export const NOBODY: Selection = { chosen: new Set(), focus: "", anchor: "" };

export const useSelection = create<Selection>(() => NOBODY);

export function focusOn(id: string): void {
  if (useSelection.getState().focus !== id) useSelection.setState({ focus: id });
}

/** Selects a clip or lets go of it, and begins ranges there. */
export function toggle(id: string): void {
  useSelection.setState(({ chosen }) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    return { chosen: next, focus: id, anchor: id };
  });
}

/** Adds clips to the selection. */
export function choose(ids: readonly string[], focus?: string): void {
  useSelection.setState((now) => ({ chosen: new Set([...now.chosen, ...ids]), focus: focus ?? now.focus }));
}

/** Lets go of some clips, or of all. */
export function letGo(ids?: readonly string[]): void {
  useSelection.setState(({ chosen }) => {
    if (!ids) return { chosen: new Set() };
    const next = new Set(chosen);
    for (const id of ids) next.delete(id);
    return { chosen: next };
  });
}
