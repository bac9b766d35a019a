/**
 * What the compose form holds. It is kept in the browser, so that nothing is lost on reload. A field that is null is left
 * to the model; only what somebody chose is sent.
 */

import { create } from "zustand";
import { persist } from "zustand/middleware";
import type { Schemas } from "@/http/client";

export type StoredImage = Pick<Schemas["StoredInput"], "id" | "url" | "width" | "height">;
export type LoraChoice = { id: string; strength: number; strength_2: number };
export type Quality = "draft" | "standard" | "best";
export type Slot = "image" | "end_image";
export type Model = Schemas["ModelInfo"];

export type Draft = {
  prompt: string;
  negative_prompt: string | null;
  /** An exact id, or `auto`. */
  model: string;
  image: StoredImage | null;
  end_image: StoredImage | null;
  image_fit: "crop" | "pad" | "stretch";
  resolution: string | null;
  /** The length: of the two, the one that is not null; frames only where an earlier clip says exactly how many. */
  seconds: number | null;
  num_frames: number | null;
  fps: number | null;
  quality: Quality;
  /** Instead of what `quality` gives. */
  steps: number | null;
  guidance_scale: number | null;
  guidance_scale_2: number | null;
  flow_shift: number | null;
  scheduler: "unipc" | "euler" | "dmd" | null;
  /** null = another one for each clip. */
  seed: number | null;
  variations: number;
  loras: LoraChoice[];
  /** A LoRA that brings its own steps, guidance and shift. */
  preset: string | null;
  crf: number | null;
  keep_latents: boolean;
};

export const EMPTY: Draft = {
  prompt: "",
  negative_prompt: null,
  model: "auto",
  image: null,
  end_image: null,
  image_fit: "crop",
  resolution: null,
  seconds: null,
  num_frames: null,
  fps: null,
  quality: "standard",
  steps: null,
  guidance_scale: null,
  guidance_scale_2: null,
  flow_shift: null,
  scheduler: null,
  seed: null,
  variations: 1,
  loras: [],
  preset: null,
  crf: null,
  keep_latents: false,
};

export const useDraft = create<Draft>()(persist(() => EMPTY, { name: "wan22.draft", version: 1 }));

export function setDraft(changes: Partial<Draft>): void {
  useDraft.setState(changes);
}

/** Puts an image that is on the server into a slot of the form. */
export function setImage(slot: Slot, image: StoredImage | null): void {
  useDraft.setState({ [slot]: image });
}

/** Share of the model's own steps that a quality takes. */
const SHARES: Record<Quality, number> = { draft: 0.4, standard: 1, best: 1.5 };

/** Steps of a quality for a model whose own number is `own` and whose largest is `most`. */
export function stepsOf(quality: Quality, own: number, most: number): number {
  return Math.min(most, Math.max(1, Math.round(own * SHARES[quality])));
}

/** The model that the form is about: the chosen one, or the one that `auto` takes as far as the page can tell. */
export function modelOf(draft: Draft, models: readonly Model[], taken?: string): Model | undefined {
  const id = draft.model === "auto" ? taken : draft.model;
  return models.find((model) => model.id === id);
}

export type Body = Record<string, unknown> & { prompt: string; model_type: string };

/** The request that the form stands for. */
export function bodyOf(draft: Draft, model: Model | undefined): Body {
  const own = Number(model?.defaults.steps ?? 0);
  const most = Number(model?.limits.max_steps ?? 100);
  const byQuality = draft.quality !== "standard" && own > 0 ? stepsOf(draft.quality, own, most) : null;
  const entries: Record<string, unknown> = {
    image_id: draft.image?.id,
    end_image_id: draft.end_image?.id,
    image_fit: draft.image && draft.image_fit !== "crop" ? draft.image_fit : null,
    negative_prompt: draft.negative_prompt,
    resolution: draft.resolution,
    seconds: draft.seconds,
    num_frames: draft.seconds === null ? draft.num_frames : null,
    fps: draft.fps,
    steps: draft.preset ? draft.steps : (draft.steps ?? byQuality),
    guidance_scale: draft.guidance_scale,
    guidance_scale_2: draft.guidance_scale_2,
    flow_shift: draft.flow_shift,
    scheduler: draft.scheduler,
    seed: draft.seed,
    variations: draft.variations > 1 ? draft.variations : null,
    loras: draft.loras.length > 0 ? draft.loras : null,
    preset: draft.preset,
    crf: draft.crf,
    keep_latents: draft.keep_latents || null,
  };
  const chosen = Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== null && value !== undefined),
  );
  return { model_type: draft.model, prompt: draft.prompt, ...chosen };
}

/** What a new clip of a stored one's values would differ in from the form: the field, its value now and later. */
export type Difference = { field: keyof Draft; now: string; later: string };

type Recalled = {
  changes: Partial<Draft>;
  /** What to know about them, such as a LoRA that is not here. */
  notes: string[];
};
export type Part = "all" | "prompt" | "seed" | "size";

const PARTS: Record<Exclude<Part, "all">, (keyof Draft)[]> = {
  prompt: ["prompt", "negative_prompt"],
  seed: ["seed"],
  size: ["resolution", "seconds", "num_frames", "fps"],
};

/** Where a stored clip's values wait until somebody has seen what they would change. */
export const useRecalled = create<{ recalled: Recalled | null }>(() => ({ recalled: null }));

/** Offers the values of a stored clip to the form. `parameters` are those of a task, a video or a record in a file. */
export function recall(parameters: Record<string, unknown>, part: Part = "all", notes: string[] = []): void {
  const all = draftOf(parameters);
  const changes =
    part === "all" ? all : (Object.fromEntries(PARTS[part].map((field) => [field, all[field]])) as Partial<Draft>);
  useRecalled.setState({ recalled: { changes, notes } });
}

/** The form that makes the clip of these values again. */
export function draftOf(from: Record<string, unknown>): Draft {
  const text = (name: string) => (typeof from[name] === "string" ? (from[name] as string) : null);
  const number = (name: string) => (typeof from[name] === "number" ? (from[name] as number) : null);
  const image = (name: Slot): StoredImage | null => {
    const id = text(`${name}_id`) ?? text(name);
    return id ? { id, url: `/api/v1/inputs/${id}`, width: 0, height: 0 } : null;
  };
  const size = number("width") && number("height") ? `${number("width")}x${number("height")}` : null;
  const loras = Array.isArray(from.loras) ? (from.loras as Partial<LoraChoice>[]) : [];
  return {
    ...EMPTY,
    prompt: text("prompt") ?? "",
    negative_prompt: text("negative_prompt"),
    model: text("model") ?? text("model_type") ?? "auto",
    image: image("image"),
    end_image: image("end_image"),
    image_fit: (text("image_fit") as Draft["image_fit"] | null) ?? "crop",
    resolution: text("resolution") ?? size,
    num_frames: number("num_frames"),
    fps: number("fps"),
    steps: number("steps"),
    guidance_scale: number("guidance_scale"),
    guidance_scale_2: number("guidance_scale_2"),
    flow_shift: number("flow_shift"),
    scheduler: text("scheduler") as Draft["scheduler"],
    seed: number("seed"),
    loras: loras.flatMap((lora) =>
      typeof lora.id === "string"
        ? [{ id: lora.id, strength: lora.strength ?? 1, strength_2: lora.strength_2 ?? lora.strength ?? 1 }]
        : [],
    ),
    crf: number("crf"),
    keep_latents: from.keep_latents === true,
  };
}

/** How a value of the form is shown to people. */
function valueShown(value: unknown): string {
  if (value === null || value === undefined || value === "") return "the model's own";
  if (Array.isArray(value)) {
    const loras = value as LoraChoice[];
    return loras.length === 0
      ? "none"
      : loras.map((one) => `${one.id} (${one.strength} / ${one.strength_2})`).join(", ");
  }
  if (typeof value === "object") return `image ${(value as StoredImage).id.slice(0, 8)}`;
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** The differences between a form and what would replace a part of it. */
export function differences(now: Draft, changes: Partial<Draft>): Difference[] {
  return (Object.keys(changes) as (keyof Draft)[]).flatMap((field) => {
    const [before, after] = [valueShown(now[field]), valueShown(changes[field])];
    return before === after ? [] : [{ field, now: before, later: after }];
  });
}
