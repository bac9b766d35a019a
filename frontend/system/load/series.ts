/** The load of the machine over time: samples from live messages and from the server's store, ready to be drawn. */

import type { Schemas } from "@/http/client";

/** One moment; `at` in Unix seconds, the rest in percent. Null where there is no card. */
export type Sample = { at: number; cpu: number; ram: number; gpu: number | null; vram: number | null };
export type Measure = Exclude<keyof Sample, "at">;

export const RANGES = [
  { value: "live", label: "5 min", seconds: 300 },
  { value: "hour", label: "1 h", seconds: 3600 },
  { value: "day", label: "24 h", seconds: 86_400 },
  { value: "week", label: "7 days", seconds: 604_800 },
] as const;
export type Range = (typeof RANGES)[number]["value"];

export function sampleOf(stats: Schemas["SystemStats"] | Schemas["PastStats"]): Sample {
  return {
    at: Date.parse(stats.timestamp) / 1000,
    cpu: stats.cpu_percent,
    ram: stats.ram_percent,
    gpu: stats.gpu_percent ?? null,
    vram: stats.vram_percent ?? null,
  };
}

/** Returns the samples with a newer one, without those that are older than `seconds` before it. */
export function withSample(samples: readonly Sample[], sample: Sample, seconds: number): readonly Sample[] {
  const newest = samples.at(-1);
  if (newest && sample.at <= newest.at) return samples;
  return [...samples.filter((one) => one.at > sample.at - seconds), sample];
}

/** Both lists as one, in order, each moment once: what was stored before the page opened, then what came live. */
export function joined(stored: readonly Sample[], live: readonly Sample[]): Sample[] {
  const first = live[0]?.at ?? Infinity;
  return [...stored.filter((one) => one.at < first), ...live];
}

/** Times and values as columns. A pause of more than ten usual intervals is a gap, not a line across it. */
export function columns(samples: readonly Sample[], measure: Measure): [number[], (number | null)[]] {
  const steps = samples.slice(1).map((one, place) => one.at - (samples[place]?.at ?? one.at));
  const usual = [...steps].sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 0;
  const times: number[] = [];
  const values: (number | null)[] = [];
  for (const [place, sample] of samples.entries()) {
    const before = samples[place - 1];
    if (before && sample.at - before.at > Math.max(45, 10 * usual)) {
      times.push((before.at + sample.at) / 2);
      values.push(null);
    }
    times.push(sample.at);
    values.push(sample[measure]);
  }
  return [times, values];
}

export type Summary = { at: number; mean: number; most: number };

/** The samples in at most `rows` equal spans of time, each with its mean and its highest value, for a table. */
export function summary(samples: readonly Sample[], measure: Measure, rows = 10): Summary[] {
  const known = samples.filter((one) => one[measure] !== null);
  const [first, last] = [known[0], known.at(-1)];
  if (!first || !last) return [];
  const width = (last.at - first.at) / rows || 1;
  const spans = new Map<number, Sample[]>();
  for (const one of known) {
    const place = Math.min(rows - 1, Math.floor((one.at - first.at) / width));
    spans.set(place, [...(spans.get(place) ?? []), one]);
  }
  return [...spans.values()].map((span) => {
    const values = span.map((one) => one[measure] ?? 0);
    return {
      at: span[0]?.at ?? 0,
      mean: values.reduce((sum, value) => sum + value, 0) / values.length,
      most: Math.max(...values),
    };
  });
}

/** How serious a share of a resource is, by the limits in percent. */
export function severity(percent: number, warning: number, critical: number): "good" | "warn" | "danger" {
  return percent >= critical ? "danger" : percent >= warning ? "warn" : "good";
}
