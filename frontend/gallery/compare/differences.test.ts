import { expect, test } from "vitest";
import type { Video } from "../grid/details";
import { lorasOf, phasesOf, rungsOf, settingsOf } from "../viewer/receipt";
import { differencesOf, sameFrames } from "./differences";

function video(
  params: Record<string, unknown>,
  more: Partial<Video> = {},
  result: Record<string, unknown> = {},
): Video {
  const plain = {
    id: "x",
    model: "tiny-t2v-a14b",
    resolution: "64x64",
    num_frames: 17,
    fps: 8,
    duration_seconds: 2.125,
    generation_seconds: 3,
  };
  return { ...plain, generation_params: params, metadata: { result }, ...more } as Video;
}

test("what differs comes first, and what nobody sees is left out", () => {
  const rows = differencesOf(
    video({
      prompt: "red",
      seed: 1,
      steps: 6,
      loras: [{ id: "chalk", strength: 1, strength_2: 0.5 }],
      keep_latents: true,
    }),
    video({ prompt: "red", seed: 2, steps: 6, loras: [] }),
  );
  expect(rows.filter((row) => !row.same)).toEqual([
    { label: "Seed", a: "1", b: "2", same: false },
    { label: "LoRAs", a: "chalk (1 / 0.5)", b: "–", same: false },
  ]);
  expect(rows.map((row) => row.label)).not.toContain("Keep latents");
});

test("equal frames are told from frames that nobody recorded", () => {
  const made = (sha?: string) => video({}, {}, sha ? { frames_sha256: sha } : {});
  expect(sameFrames(made("a"), made("a"))).toBe(true);
  expect(sameFrames(made("a"), made("b"))).toBe(false);
  expect(sameFrames(made("a"), made())).toBeUndefined();
});

test("a receipt says in words what was asked and what ran", () => {
  const made = video(
    { steps: 6, guidance_scale: 4, guidance_scale_2: 3, seed: 7 },
    { instead_of: "T2V-A14B", loras: [{ id: "chalk", outcome: "skipped", reason: "no key fits" }] },
    {
      expert_steps: { high: 2, low: 4 },
      seconds: { load: 1, denoise_low: 4 },
      fallbacks: [{ at: "decoding", from: "resident", to: "tiled", reason: "2 GiB were missing" }, {}],
    },
  );
  const rows = Object.fromEntries(settingsOf(made).map((row) => [row.label, row]));
  expect(rows.Model).toEqual({ label: "Model", value: "tiny-t2v-a14b", asked: "T2V-A14B" });
  expect(rows.Steps?.value).toBe("6 (2 high, 4 low noise)");
  expect(rows.Guidance?.value).toBe("4 high noise, 3 low noise");
  expect(phasesOf(made)).toEqual([
    { label: "Load", seconds: 1, share: 0.25 },
    { label: "Denoise, low noise", seconds: 4, share: 1 },
  ]);
  expect(rungsOf(made)).toEqual([
    "Memory ran out (decoding): resident → tiled; 2 GiB were missing",
    "Memory ran out once; what was done about it cannot be read.",
  ]);
  expect(lorasOf(made)).toEqual([{ id: "chalk", applied: false, text: "left out", notes: ["no key fits"] }]);
});

test("a clip without a record has a receipt all the same", () => {
  const made = { ...video({}), metadata: undefined } as Video;
  expect(settingsOf(made).map((row) => row.label)).toEqual(["Model", "Size", "Length"]);
  expect([phasesOf(made), rungsOf(made), lorasOf(made)]).toEqual([[], [], []]);
});
