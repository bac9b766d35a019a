import fc from "fast-check";
import { expect, test } from "vitest";
import { frameAt, lengthOf, timeOf } from "../viewer/frames";
import { correction, stepOf, stepsOf, timeIn } from "./pair";

const clips = fc.record({ fps: fc.constantFrom(8, 12, 16, 24, 30), num_frames: fc.integer({ min: 1, max: 200 }) });

test("steps reach every frame of both clips", () => {
  fc.assert(
    fc.property(clips, clips, (a, b) => {
      const [step, steps] = [stepOf(a, b), stepsOf(a, b)];
      const seen = Array.from({ length: steps }, (_, place) => (place + 0.5) * step);
      for (const clip of [a, b]) {
        const frames = new Set(seen.map((time) => frameAt(clip, timeIn(clip, time))));
        expect(frames.size).toBe(clip.num_frames);
      }
    }),
  );
});

test("a shorter clip waits at its last frame", () => {
  const clip = { fps: 8, num_frames: 9 };
  expect(timeIn(clip, 99)).toBe(timeOf(clip, 8));
  expect(timeIn(clip, 0.3)).toBe(0.3);
  expect(timeIn(clip, -1)).toBe(0);
  expect(lengthOf(clip)).toBe(1.125);
});

test("a follower is led back within a frame, and jumps beyond", () => {
  const frame = 1 / 16;
  expect(correction(frame, frame).jump).toBe(true);
  expect(correction(-3, frame).jump).toBe(true);
  for (const start of [-0.7 * frame, 0.7 * frame]) {
    let drift = start;
    for (let tick = 0; tick < 240; tick += 1) {
      const { jump, factor } = correction(drift, frame);
      expect(jump).toBe(false);
      drift += (factor - 1) / 60;
    }
    expect(Math.abs(drift)).toBeLessThan(frame / 20);
  }
});
