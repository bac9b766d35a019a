/** The receipt of a clip in plain words: what was asked for, what ran, and what differed. Reads the record in the file. */

import { bytes, duration } from "@/app/format";
import type { Video } from "../grid/details";

export type Row = { label: string; value: string; asked?: string };
export type Phase = { label: string; seconds: number; share: number };
export type LoraLine = { id: string; applied: boolean; text: string; notes: string[] };

type Values = Record<string, unknown>;

function values(from: unknown): Values {
  return typeof from === "object" && from !== null && !Array.isArray(from) ? (from as Values) : {};
}

function text(from: Values, name: string): string | undefined {
  const value = from[name];
  return value === null || value === undefined || value === "" ? undefined : String(value);
}

function number(from: Values, name: string): number | undefined {
  return typeof from[name] === "number" ? (from[name] as number) : undefined;
}

/** The result part of a record: how the run went. */
export function resultOf(video: Video): Values {
  return values(values(video.metadata).result);
}

/** What was made, and with what. Rows whose value nobody recorded are left out. */
export function settingsOf(video: Video): Row[] {
  const asked = values(video.generation_params);
  const steps = number(asked, "steps");
  const ran = values(resultOf(video).expert_steps);
  const experts = Object.entries(ran).map(([expert, count]) => `${count} ${expert}`);
  const guidance = [number(asked, "guidance_scale"), number(asked, "guidance_scale_2")].filter(
    (one) => one !== undefined,
  );
  const rows: (Row | undefined)[] = [
    { label: "Model", value: video.model, asked: video.instead_of ?? undefined },
    { label: "Size", value: `${video.resolution}, ${video.num_frames} frames at ${video.fps} per second` },
    { label: "Length", value: `${video.duration_seconds.toFixed(2)} s` },
    steps === undefined
      ? undefined
      : { label: "Steps", value: experts.length > 1 ? `${steps} (${experts.join(", ")} noise)` : String(steps) },
    guidance.length
      ? {
          label: "Guidance",
          value: guidance.length > 1 ? `${guidance[0]} high noise, ${guidance[1]} low noise` : String(guidance[0]),
        }
      : undefined,
    row("Flow shift", text(asked, "flow_shift")),
    row("Scheduler", text(asked, "scheduler")),
    row("Seed", text(asked, "seed")),
    row("Preset", text(asked, "preset")),
    row("Goes on from", text(asked, "extends")),
    row("Decoded again from", text(asked, "latents_of")),
  ];
  return rows.filter((one) => one !== undefined);
}

function row(label: string, value: string | undefined): Row | undefined {
  return value === undefined ? undefined : { label, value };
}

/** How it ran on this machine. */
export function runOf(video: Video): Row[] {
  const record = values(video.metadata);
  const result = resultOf(video);
  const [vram, ram, step] = ["peak_vram_bytes", "peak_ram_bytes", "resumed_from_step"].map((name) =>
    number(result, name),
  );
  const rows: (Row | undefined)[] = [
    row("Device", text(record, "device")),
    row("Memory plan", text(result, "plan")),
    row("Why this plan", text(result, "plan_reason")?.replace(/^[\w-]+: /, "")),
    row("Computed in", text(result, "precision")),
    row("Attention", text(result, "attention")),
    row("Most VRAM used", vram === undefined ? undefined : bytes(vram)),
    row("Most RAM used", ram === undefined ? undefined : bytes(ram)),
    row("Resumed after step", step === undefined ? undefined : String(step)),
    row("Made by", text(record, "version") && `${text(record, "product") ?? "wan22"} ${text(record, "version")}`),
  ];
  return rows.filter((one) => one !== undefined);
}

/** What was given up because memory ran out, one sentence each. */
export function rungsOf(video: Video): string[] {
  const { fallbacks } = resultOf(video);
  return (Array.isArray(fallbacks) ? fallbacks : []).map((one) => {
    const { at, from, to, reason } = values(one);
    if (!from || !to) return "Memory ran out once; what was done about it cannot be read.";
    return [`Memory ran out${at ? ` (${at})` : ""}: ${from} → ${to}`, reason].filter(Boolean).join("; ");
  });
}

const PHASES: Record<string, string> = {
  download: "Download",
  load: "Load",
  encode: "Read the prompt",
  denoise_high: "Denoise, high noise",
  denoise_low: "Denoise, low noise",
  decode: "Decode",
  mux: "Save",
};

/** The seconds of each phase, in order, with their share of the longest one. */
export function phasesOf(video: Video): Phase[] {
  const seconds = values(resultOf(video).seconds);
  const found = Object.entries(PHASES).flatMap(([name, label]) => {
    const took = number(seconds, name);
    return took === undefined ? [] : [{ label, seconds: took }];
  });
  const longest = Math.max(...found.map((one) => one.seconds), 1e-9);
  return found.map((one) => ({ ...one, share: one.seconds / longest }));
}

/** What became of each LoRA that was asked for. */
export function lorasOf(video: Video): LoraLine[] {
  return (video.loras ?? []).map((receipt) => {
    const strengths = Object.entries(values(receipt.strength)).map(([expert, strength]) => `${strength} ${expert}`);
    const applied = receipt.outcome === "applied";
    const warnings = Array.isArray(receipt.warnings) ? receipt.warnings.map(String) : [];
    const reason = typeof receipt.reason === "string" ? [receipt.reason] : [];
    return {
      id: String(receipt.id),
      applied,
      text: applied ? `applied${strengths.length ? ` at ${strengths.join(", ")}` : ""}` : "left out",
      notes: [...reason, ...warnings],
    };
  });
}

/** Time from the claim to the file. */
export function tookInWords(video: Video): string {
  return video.generation_seconds < 10
    ? `${video.generation_seconds.toFixed(1)} s`
    : duration(video.generation_seconds);
}
