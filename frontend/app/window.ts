/** Which of the page's own windows is open: at most one. */

import { create } from "zustand";

type Windows = { open: "queue" | "palette" | "keys" | null };

export const useWindows = create<Windows>(() => ({ open: null }));

export function openWindow(open: Windows["open"]): void {
  useWindows.setState((now) => ({ open: now.open === open ? null : open }));
}
