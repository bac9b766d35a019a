/**
 * The one registry of what the page can do. Palette, keys, menus, tooltips and the sheet of keys are views of it.
 * A part of the page registers its commands while it is shown; of two with the same key, the later one holds.
 */

import type { LucideIcon } from "lucide-react";
import { useEffect, useId, useRef } from "react";
import { create } from "zustand";
import { usePreferences } from "./preferences";

export type Command = {
  /** `subject.deed`; keys that somebody changed are stored under it. */
  id: string;
  title: string;
  /** The heading under which palette and sheet show it. */
  group: string;
  icon?: LucideIcon;
  /** The key at first, as in `mod+shift+enter`; `mod` is Ctrl, on a Mac Cmd. */
  key?: string;
  /** Whether it can be done now; true when left out. */
  enabled?: boolean;
  /** Works while somebody types, too. Combinations with `mod` always do. */
  whileTyping?: boolean;
  run: () => void;
};

type Registry = { parts: ReadonlyMap<string, readonly Command[]> };

export const useRegistry = create<Registry>(() => ({ parts: new Map() }));

/** Offers commands while the calling component is shown. */
export function useCommands(commands: readonly Command[]): void {
  const part = useId();
  const newest = useRef(commands);
  newest.current = commands;
  const signature = commands.map((one) => `${one.id}:${one.title}:${one.enabled ?? true}`).join("|");
  // biome-ignore lint/correctness/useExhaustiveDependencies: the signature says when a view has to change
  useEffect(() => {
    const now = newest.current.map((one) => ({
      ...one,
      run: () => newest.current.find((other) => other.id === one.id)?.run(),
    }));
    useRegistry.setState(({ parts }) => ({ parts: new Map([...parts].filter(([id]) => id !== part)).set(part, now) }));
    return () => useRegistry.setState(({ parts }) => ({ parts: new Map([...parts].filter(([id]) => id !== part)) }));
  }, [part, signature]);
}

/** All commands that are offered now, in the order in which they came. */
export function offered(parts: Registry["parts"]): Command[] {
  return [...parts.values()].flat();
}

/** The key of a command: the changed one, or the one at first. */
export function keyOf(command: Pick<Command, "id" | "key">, changed = usePreferences.getState().keys): string {
  return changed[command.id] ?? command.key ?? "";
}

const MAC = /mac|iphone|ipad/i.test(navigator.platform);
const WORDS: Record<string, string> = {
  mod: MAC ? "⌘" : "Ctrl",
  shift: MAC ? "⇧" : "Shift",
  alt: MAC ? "⌥" : "Alt",
  enter: "Enter",
  escape: "Esc",
  arrowup: "↑",
  arrowdown: "↓",
  arrowleft: "←",
  arrowright: "→",
  space: "Space",
  delete: "Del",
};

/** A key as people read it: `Ctrl+Enter`. */
export function shown(key: string): string {
  return key
    .split("+")
    .map((part) => WORDS[part] ?? part.toUpperCase())
    .join(MAC ? "" : "+");
}

/** The key of the command with this id, as people read it; undefined when it has none or is not offered. */
export function useShown(id: string): string | undefined {
  const command = useRegistry(({ parts }) => offered(parts).find((one) => one.id === id));
  const changed = usePreferences((now) => now.keys);
  const key = command && keyOf(command, changed);
  return key ? shown(key) : undefined;
}

/** The combination that a key press stands for, in the notation of `Command.key`; empty for a modifier alone. */
export function pressed(event: KeyboardEvent): string {
  const { key } = event;
  if (["Control", "Meta", "Shift", "Alt", "Dead", "Process"].includes(key)) return "";
  const name = key === " " ? "space" : key.toLowerCase();
  // A character that needs Shift to be typed, such as `?`, stands for itself.
  const shift = event.shiftKey && (name.length > 1 || /[a-z0-9]/.test(name));
  const mod = MAC ? event.metaKey : event.ctrlKey;
  return [mod && "mod", event.altKey && "alt", shift && "shift", name].filter(Boolean).join("+");
}

function typing(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement)
    return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(target.type);
}

/** Whether the focused control needs this key itself: Enter and Space press it, arrows move it. */
function taken(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.closest("[role=menu]")) return true;
  const presses = target.matches("button, a[href], summary, input, [role=button], [role=menuitem]");
  if (presses && (key === "enter" || key === "space")) return true;
  return target instanceof HTMLInputElement && ["radio", "range"].includes(target.type) && key.startsWith("arrow");
}

/** Whether a window is open over the page. A short message at the edge is none, though it has the same role. */
export function windowOpen(): boolean {
  return document.querySelector("[role=dialog]:not([aria-modal=false])") !== null;
}

/** Runs commands by their keys from now on. */
export function listenToKeys(): void {
  window.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const combination = pressed(event);
    if (!combination || taken(event.target, combination)) return;
    const inField = typing(event.target);
    const open = windowOpen();
    const found = offered(useRegistry.getState().parts).findLast((command) => {
      if (command.enabled === false || keyOf(command) !== combination) return false;
      return !inField || command.whileTyping || combination.startsWith("mod+");
    });
    if (!found && inField && !open && combination === "escape") {
      // Out of the field, so that single letters are keys again.
      (event.target as HTMLElement).blur();
      return;
    }
    // Behind an open window, only what belongs to it and combinations answer.
    if (!found || (open && !combination.startsWith("mod+") && !found.id.startsWith("window."))) return;
    event.preventDefault();
    found.run();
  });
}
