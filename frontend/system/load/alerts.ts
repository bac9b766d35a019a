/** The alerts that came since this page was loaded, the newest first. Kept nowhere else. */

import { create } from "zustand";
import type { Alert } from "@/live/messages";
import { onMessage } from "@/live/socket";

/** Alerts that are remembered at most. */
const MOST = 200;

export type Heard = Alert & { number: number; at: number };

export const useAlerts = create<{ alerts: readonly Heard[] }>(() => ({ alerts: [] }));

let last = 0;
let newest = -1;

onMessage((message) => {
  if (message.type !== "alert") return;
  // After a reconnection the server sends again what this page may have missed.
  if (message.event_id !== undefined && message.event_id <= newest) return;
  newest = message.event_id ?? newest;
  last += 1;
  const heard = { ...message.data, number: last, at: Date.now() };
  useAlerts.setState(({ alerts }) => ({ alerts: [heard, ...alerts].slice(0, MOST) }));
});
