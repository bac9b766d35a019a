/** Makes a clip again from its record, and says afterwards whether every frame is the same. */

import { create } from "zustand";
import { createJSONStorage, persist } from "zustand/middleware";
import { api, data, type Schemas } from "@/http/client";
import { KEYS, queries } from "@/http/queries";
import type { Task } from "@/live/reducer";
import { say } from "@/ui/toasts";
import { bodyOf, draftOf } from "./draft";
import { failed, unfinished } from "./queue";

/** The clips that are made again: the id of each new task, and that of the clip that it must equal. Kept over a reload. */
const useChecks = create<Record<string, string>>()(
  persist(() => ({}), { name: "wan22.checks", storage: createJSONStorage(() => sessionStorage) }),
);

export async function makeAgain(clip: { id: string; generation_params: Record<string, unknown> }): Promise<void> {
  const body = { ...bodyOf(draftOf(clip.generation_params), undefined), client_request_id: crypto.randomUUID() };
  try {
    const answer = await data(api.POST("/api/v1/generation/submit", { body: body as never }));
    const { task_id } = answer as Schemas["Submitted"];
    useChecks.setState({ [task_id]: clip.id });
    say({ title: "The clip is made again", text: "A message says then whether its frames are the same." });
    void queries.invalidateQueries({ queryKey: KEYS.queue });
  } catch (error) {
    failed(error);
  }
}

export function isCheck(task: string): boolean {
  return task in useChecks.getState();
}

/** Takes the checks that have ended: pairs of a completed task and of the clip that it must equal. */
export function endedChecks(tasks: readonly Task[]): [string, string][] {
  const open = useChecks.getState();
  const ended = tasks.filter((task) => task.id in open && !unfinished(task));
  if (ended.length === 0) return [];
  const gone = new Set(ended.map((task) => task.id));
  useChecks.setState(Object.fromEntries(Object.entries(open).filter(([task]) => !gone.has(task))), true);
  return ended.flatMap(({ id, status }) => (status === "completed" && open[id] ? [[id, open[id]]] : []));
}

/** Tells whether two clips have the same frames; `compare` shows them side by side. */
export async function tellWhetherSame(a: string, b: string, compare: () => void): Promise<void> {
  const action = { label: "Compare", run: compare };
  try {
    const [one, other] = await Promise.all([a, b].map(framesOf));
    if (!one || !other) say({ title: "Made again", text: "The record of a clip does not name its frames.", action });
    else if (one === other) say({ title: "The same frames, bit for bit", action });
    else say({ title: "The frames differ", text: "The comparison names what was not the same.", action, urgent: true });
  } catch (error) {
    failed(error);
  }
}

async function framesOf(clip: string): Promise<unknown> {
  const params = { path: { output_id: clip } };
  const { metadata } = await data(api.GET("/api/v1/outputs/{output_id}", { params }));
  return (metadata as { result?: { frames_sha256?: unknown } }).result?.frames_sha256;
}
