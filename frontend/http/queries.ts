/** The cache of what the server said, and the names of its entries: the live messages write into the same ones. */

import { QueryClient } from "@tanstack/react-query";
import { asProblem } from "./client";

/** Keys of the cache by subject. */
export const KEYS = {
  session: ["session"],
  queue: ["queue"],
  task: (id: string) => ["task", id],
  outputs: ["outputs"],
  models: ["models"],
  fits: ["fits"],
  downloads: ["downloads"],
  loras: ["loras"],
  stats: ["stats"],
  health: ["health"],
  settings: ["settings"],
} as const;

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // Live messages keep the entries true; a visit of the window reads anew only what is old.
      staleTime: 30_000,
      retry: (count, error) => count < 3 && asProblem(error).status === 0,
      networkMode: "always",
    },
    mutations: { networkMode: "always" },
  },
});
