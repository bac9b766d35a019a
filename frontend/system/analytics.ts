/** Figures of ended tasks, arranged for bars: by size, by phase, by day. */

import type { Schemas } from "@/http/client";

export type Bar = { label: string; value: number; note?: string };

type TaskRow = Schemas["TaskRow"];

/** Mean seconds of finished clips by model and size, the most frequent first; a clip of unknown time does not count. */
export function bySize(rows: readonly TaskRow[], most = 12): Bar[] {
  const groups = new Map<string, number[]>();
  for (const row of rows) {
    if (!row.success || row.generation_time_seconds == null) continue;
    const label = `${row.model} · ${row.resolution}, ${row.num_frames} frames, ${row.steps} steps`;
    groups.set(label, [...(groups.get(label) ?? []), row.generation_time_seconds]);
  }
  return [...groups]
    .sort(([, a], [, b]) => b.length - a.length)
    .slice(0, most)
    .map(([label, times]) => ({
      label,
      value: times.reduce((sum, time) => sum + time, 0) / times.length,
      note: times.length === 1 ? "1 clip" : `${times.length} clips`,
    }));
}

const PHASES: Record<string, string> = {
  load: "Loading the model",
  loading: "Loading the model",
  encode: "Reading the prompt",
  denoise: "Denoising",
  denoise_high: "Denoising, high noise",
  denoise_low: "Denoising, low noise",
  decode: "Decoding",
  mux: "Saving",
};

/** The seconds of each phase, the longest first, each with its share. */
export function byPhase(phases: Record<string, number>): Bar[] {
  const total = Object.values(phases).reduce((sum, seconds) => sum + seconds, 0);
  return Object.entries(phases)
    .sort(([, a], [, b]) => b - a)
    .map(([phase, value]) => ({
      label: PHASES[phase] ?? phase.charAt(0).toUpperCase() + phase.slice(1).replaceAll("_", " "),
      value,
      note: total ? `${Math.round((100 * value) / total)} %` : undefined,
    }));
}

/** Ended tasks of each local day, in order, with the share that became a clip. */
export function byDay(rows: readonly TaskRow[]): Bar[] {
  const days = new Map<string, TaskRow[]>();
  for (const row of [...rows].sort((a, b) => (a.end_time ?? "").localeCompare(b.end_time ?? ""))) {
    if (!row.end_time) continue;
    const day = new Date(row.end_time).toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" });
    days.set(day, [...(days.get(day) ?? []), row]);
  }
  return [...days].map(([label, ended]) => {
    const good = ended.filter((row) => row.success).length;
    return { label, value: ended.length, note: `${good} finished` };
  });
}
