/** What this browser remembers of its owner's taste. Nothing here concerns the server. */

import { create } from "zustand";
import { persist } from "zustand/middleware";

export type Theme = "system" | "light" | "dark";

type Preferences = {
  theme: Theme;
  /** Keys that somebody changed, by the id of the command; an empty text switches the key off. */
  keys: Record<string, string>;
  /** Whether a finished clip may be heard, and shown by the system. */
  sound: boolean;
  notifications: boolean;
  /** Width of a gallery tile, in pixels. */
  tile: number;
};

const DEFAULTS: Preferences = { theme: "system", keys: {}, sound: false, notifications: false, tile: 220 };

export const usePreferences = create<Preferences>()(persist(() => DEFAULTS, { name: "wan22.preferences", version: 1 }));

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const { theme } = usePreferences.getState();
  document.documentElement.dataset.theme = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
}

/** Keeps the page in the chosen theme, or in that of the system. */
export function followTheme(): void {
  applyTheme();
  usePreferences.subscribe(applyTheme);
  dark.addEventListener("change", applyTheme);
}
