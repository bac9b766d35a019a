/**
 * Calls of the server's API, typed by its own description (`schema.gen.ts`, made from `docs/openapi.json`).
 *
 * Every call ends in its data or in a `Problem`. Paths are below `<base>`, so that a prefix of a proxy is kept.
 */

import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.gen";

export type Schemas = components["schemas"];

/** The prefix of every path of the server, without a slash at its end. */
export const PREFIX = new URL(document.baseURI).pathname.replace(/\/$/, "");

/** Prefixes a path that an answer of the server names, unless the server has done so. */
export function place(path: string): string {
  return PREFIX && !path.startsWith(`${PREFIX}/`) ? PREFIX + path : path;
}

export type NextStep = { action: string; label?: string; [field: string]: unknown };

/** What the server refused, or why it could not be reached: in words, and what to do next. */
export class Problem extends Error {
  constructor(
    message: string,
    /** The server's code for it, `unreachable` without an answer. */
    readonly code: string,
    readonly status: number,
    readonly suggestions: string[] = [],
    readonly actions: NextStep[] = [],
    readonly details: unknown = undefined,
  ) {
    super(message);
  }
}

export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem(
    "The server does not answer",
    "unreachable",
    0,
    ["The page asks again by itself. Your queue goes on without it."],
    [],
    error,
  );
}

export const api = createClient<paths>({
  baseUrl: PREFIX,
  headers: { "Wan22-Model-Ids": "exact" },
  credentials: "same-origin",
});

const listeners = new Set<(problem: Problem) => void>();

/** Calls `listener` for every refusal; for what concerns the whole page, such as a session that ended. */
export function onProblem(listener: (problem: Problem) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const refusals: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return;
    const body = (await response
      .clone()
      .json()
      .catch(() => null)) as Schemas["ErrorBody"] | null;
    const problem = new Problem(
      body?.message ?? body?.detail ?? `The server answered ${response.status}`,
      body?.error ?? "unknown",
      response.status,
      body?.suggestions ?? [],
      (body?.actions ?? []) as NextStep[],
      body?.details,
    );
    for (const listener of listeners) listener(problem);
    throw problem;
  },
};
api.use(refusals);

/** Waits for a call and returns its data. */
export async function data<T>(call: Promise<{ data?: T }>): Promise<T> {
  try {
    return (await call).data as T;
  } catch (error) {
    throw asProblem(error);
  }
}
