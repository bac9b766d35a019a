/** What differs between two clips, as rows of a table. */

import type { Video } from "../grid/details";
import { resultOf, tookInWords } from "../viewer/receipt";

export type Difference = { label: string; a: string; b: string; same: boolean };

const NAMES: Record<string, string> = {
  negative_prompt: "Not wanted",
  num_frames: "Frames",
  fps: "Frames per second",
  guidance_scale: "Guidance, high noise",
  guidance_scale_2: "Guidance, low noise",
  crf: "Quality of the file (crf)",
  image: "Start image",
  end_image: "End image",
  loras: "LoRAs",
  extends: "Goes on from",
  latents_of: "Decoded again from",
};

/** Never shown: they decide nothing that can be seen. */
const LEFT_OUT = new Set([
  "keep_latents",
  "on_lora_failure",
  "on_model_failure",
  "force",
  "max_sequence_length",
  "width",
  "height",
]);

function name(key: string): string {
  const words = key.replaceAll("_", " ");
  return NAMES[key] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

function shown(value: unknown): string {
  if (value === undefined || value === null || value === "") return "–";
  if (Array.isArray(value)) return value.length === 0 ? "–" : value.map(shown).join(", ");
  if (typeof value === "object") {
    const { id, strength, strength_2 } = value as Record<string, unknown>;
    return id === undefined
      ? JSON.stringify(value)
      : `${id} (${[strength, strength_2].filter((one) => one != null).join(" / ")})`;
  }
  return String(value);
}

/** The rows, those that differ first in their order. */
export function differencesOf(a: Video, b: Video): Difference[] {
  const [asked, other] = [a.generation_params, b.generation_params];
  const keys = [...new Set([...Object.keys(asked), ...Object.keys(other)])].filter((key) => !LEFT_OUT.has(key));
  const pairs: [string, unknown, unknown][] = [
    ...keys.map((key): [string, unknown, unknown] => [name(key), asked[key], other[key]]),
    ["Size", a.resolution, b.resolution],
    ["Asked for", a.instead_of ?? a.model, b.instead_of ?? b.model],
    ["Mock", a.mock ? "yes" : "no", b.mock ? "yes" : "no"],
    ["Memory plan", resultOf(a).plan, resultOf(b).plan],
    ["Took", tookInWords(a), tookInWords(b)],
  ];
  const rows = pairs.map(([label, one, two]) => ({
    label,
    a: shown(one),
    b: shown(two),
    same: shown(one) === shown(two),
  }));
  return [...rows.filter((row) => !row.same), ...rows.filter((row) => row.same)];
}

/** Whether the decoded frames are the same to the bit; undefined when a record does not say. */
export function sameFrames(a: Video, b: Video): boolean | undefined {
  const [one, two] = [resultOf(a).frames_sha256, resultOf(b).frames_sha256];
  return typeof one === "string" && typeof two === "string" ? one === two : undefined;
}
