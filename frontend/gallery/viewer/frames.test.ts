import fc from "fast-check";
import { expect, test } from "vitest";
import { frameAt, lengthOf, nameOf, timeInWords, timeOf } from "./frames";

const clips = fc.record({
  fps: fc.constantFrom(8, 12.5, 16, 23.976, 24, 30, 60),
  num_frames: fc.integer({ min: 1, max: 500 }),
});

test("the middle of a frame is in that frame, and so is its edge as files round it", () => {
  fc.assert(
    fc.property(clips, fc.nat(499), (clip, number) => {
      const frame = Math.min(number, clip.num_frames - 1);
      expect(frameAt(clip, timeOf(clip, frame))).toBe(frame);
      expect(frameAt(clip, Math.round((frame / clip.fps) * 1e6) / 1e6)).toBe(frame);
    }),
  );
});

test("nothing is before the first frame or after the last", () => {
  const clip = { fps: 8, num_frames: 17 };
  expect([frameAt(clip, -1), frameAt(clip, 99), frameAt(clip, lengthOf(clip))]).toEqual([0, 16, 16]);
  expect([timeOf(clip, -3), timeOf(clip, 99)]).toEqual([0.0625, 16.5 / 8]);
  expect(timeInWords(clip, 1.25)).toBe("0:01.25 · frame 11 of 17");
});

test("a prompt becomes the name of a file", () => {
  expect(nameOf("A red circle, moving RIGHT on a navy background")).toBe("a-red-circle-moving-right-on");
  expect(nameOf("一只猫")).toBe("clip");
});
