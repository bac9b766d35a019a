/** How the live connection stands, for the banner and for queries that must ask by themselves while it is down. */

import { create } from "zustand";

type Connection = {
  state: "opening" | "live" | "lost";
  /** When it was lost, in Unix milliseconds. */
  lostAt: number | null;
};

export const useConnection = create<Connection>(() => ({ state: "opening", lostAt: null }));

/** Interval in milliseconds at which a query asks while no live messages come; false while they do. */
export function usePolling(interval: number): number | false {
  return useConnection((now) => (now.state === "live" ? false : interval));
}
