/**
 * What is known of single clips: fetched for those in sight alone, kept for some thousand, and dropped by age. What has
 * left the screen before its answer came is no longer asked for.
 */

import { useSyncExternalStore } from "react";
import { api, data, type Schemas } from "@/http/client";
import { onMessage } from "@/live/socket";

export type Video = Schemas["VideoMetadata"];

/** Most clips that are kept, in one request, and requests at a time. */
const KEPT = 3_000;
const BATCH = 60;
const AT_ONCE = 2;
/** Pause before a failed request is repeated, in milliseconds. */
const PAUSE = 2_000;

type Answer = { videos: Video[]; missing: string[] };
type Fetch = (ids: string[], signal: AbortSignal) => Promise<Answer>;
type Request = { ids: Set<string>; abort: AbortController };

export class Details {
  /** Newest use last; null = the server has no such clip. */
  private readonly known = new Map<string, Video | null>();
  private readonly stale = new Set<string>();
  private readonly listeners = new Map<string, Set<() => void>>();
  private readonly requests = new Set<Request>();
  /** What is in sight, by whom it is shown: the grid and the viewer want different clips. */
  private readonly wanted = new Map<string, string[]>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly fetch: Fetch,
    private readonly kept = KEPT,
  ) {}

  /** undefined = not known yet; null = there is no such clip. */
  get(id: string): Video | null | undefined {
    return this.known.get(id);
  }

  get size(): number {
    return this.known.size;
  }

  /** Says which clips somebody shows now, the most urgent first; replaces what they showed before. */
  want(whom: string, ids: string[]): void {
    if (ids.length) this.wanted.set(whom, ids);
    else this.wanted.delete(whom);
    const all = new Set([...this.wanted.values()].flat());
    for (const request of this.requests) {
      if ([...request.ids].some((id) => all.has(id))) continue;
      this.requests.delete(request);
      request.abort.abort();
    }
    this.pump();
  }

  /** Takes what an answer said of a clip. */
  put(video: Video): void {
    this.keep(video.id, video);
    this.stale.delete(video.id);
    this.tell(video.id);
  }

  /** Changes what is shown of some clips, before the server has answered. */
  change(ids: Iterable<string>, change: (video: Video) => Video): void {
    for (const id of ids) {
      const video = this.known.get(id);
      if (!video) continue;
      this.known.set(id, change(video));
      this.tell(id);
    }
  }

  /** Asks anew for a clip, or for all, when they are in sight; what is known is shown until then. */
  refresh(id?: string): void {
    for (const one of id === undefined ? [...this.known.keys()] : [id]) this.stale.add(one);
    this.pump();
  }

  subscribe(id: string, listener: () => void): () => void {
    const found = this.listeners.get(id) ?? new Set();
    this.listeners.set(id, found.add(listener));
    return () => {
      found.delete(listener);
      if (found.size === 0) this.listeners.delete(id);
    };
  }

  private pump(): void {
    if (this.requests.size >= AT_ONCE) return;
    const asked = new Set([...this.requests].flatMap((request) => [...request.ids]));
    const missing: string[] = [];
    for (const id of new Set([...this.wanted.values()].flat())) {
      if (!asked.has(id) && (!this.known.has(id) || this.stale.has(id))) missing.push(id);
      if (missing.length === BATCH) break;
    }
    if (missing.length === 0) return;
    const request = { ids: new Set(missing), abort: new AbortController() };
    this.requests.add(request);
    this.fetch(missing, request.abort.signal).then(
      (answer) => this.answered(request, answer),
      () => this.failed(request),
    );
    this.pump();
  }

  private answered(request: Request, { videos, missing }: Answer): void {
    if (!this.requests.delete(request)) return;
    for (const video of videos) this.put(video);
    for (const id of missing) {
      this.keep(id, null);
      this.stale.delete(id);
      this.tell(id);
    }
    this.pump();
  }

  private failed(request: Request): void {
    if (!this.requests.delete(request)) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pump(), PAUSE);
  }

  private keep(id: string, video: Video | null): void {
    this.known.delete(id);
    this.known.set(id, video);
    if (this.known.size <= this.kept) return;
    for (const oldest of this.known.keys()) {
      if (this.known.size <= this.kept) return;
      if (!this.listeners.has(oldest)) this.known.delete(oldest);
    }
  }

  private tell(id: string): void {
    for (const listener of this.listeners.get(id) ?? []) listener();
  }
}

/** The clips that this page knows. */
export const details = new Details((ids, signal) => data(api.POST("/api/v1/outputs/batch", { body: { ids }, signal })));

onMessage((message) => {
  if (message.type === "output_update") details.refresh(message.data.output_id);
  if (message.type === "replay_gap") details.refresh();
});

/** What is known of a clip that somebody has said to want; undefined until it has come, null if there is none. */
export function useVideo(id: string): Video | null | undefined {
  return useSyncExternalStore(
    (listener) => details.subscribe(id, listener),
    () => details.get(id),
  );
}
