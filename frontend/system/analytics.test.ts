import { describe, expect, it } from "vitest";
import type { Schemas } from "@/http/client";
import { byDay, byPhase, bySize } from "./analytics";

const row = (over: Partial<Schemas["TaskRow"]>): Schemas["TaskRow"] =>
  ({ model: "tiny", resolution: "96x96", num_frames: 17, steps: 20, success: true, ...over }) as Schemas["TaskRow"];

describe("times by size", () => {
  it("are means of finished clips whose time is known, the most frequent first", () => {
    const bars = bySize([
      row({ generation_time_seconds: 9, steps: 4 }),
      row({ generation_time_seconds: 2 }),
      row({ generation_time_seconds: 4 }),
      row({ generation_time_seconds: 99, success: false }),
      row({}),
    ]);
    expect(bars.map(({ value, note }) => [value, note])).toEqual([
      [3, "2 clips"],
      [9, "1 clip"],
    ]);
  });
});

it("phases have shares of the whole", () => {
  expect(byPhase({ decode: 1, denoise: 3 })).toEqual([
    { label: "Denoising", value: 3, note: "75 %" },
    { label: "Decoding", value: 1, note: "25 %" },
  ]);
});

it("days are in order and say how many became a clip", () => {
  const bars = byDay([
    row({ end_time: "2026-03-02T12:00:00Z" }),
    row({ end_time: "2026-03-01T12:00:00Z", success: false }),
    row({ end_time: "2026-03-01T13:00:00Z" }),
  ]);
  expect(bars.map(({ value, note }) => [value, note])).toEqual([
    [2, "1 finished"],
    [1, "1 finished"],
  ]);
});
