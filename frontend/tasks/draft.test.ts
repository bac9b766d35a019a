import fc from "fast-check";
import { expect, test } from "vitest";
import type { Task } from "@/live/reducer";
import { bodyOf, type Draft, differences, draftOf, EMPTY, type Model, stepsOf } from "./draft";
import { inOrder, moved } from "./queue";

const model = { id: "m", defaults: { steps: 20 }, limits: { max_steps: 100 } } as unknown as Model;

test("an empty form leaves everything to the model", () => {
  expect(bodyOf({ ...EMPTY, prompt: "x" }, model)).toEqual({ model_type: "auto", prompt: "x" });
});

test("what was chosen is sent, and a quality becomes steps", () => {
  const draft: Draft = {
    ...EMPTY,
    prompt: "x",
    quality: "draft",
    seed: 0,
    variations: 3,
    image: { id: "i", url: "/u", width: 1, height: 1 },
    loras: [{ id: "l", strength: 0.5, strength_2: 1 }],
  };
  expect(bodyOf(draft, model)).toEqual({
    model_type: "auto",
    prompt: "x",
    image_id: "i",
    steps: 8,
    seed: 0,
    variations: 3,
    loras: [{ id: "l", strength: 0.5, strength_2: 1 }],
  });
  expect(bodyOf({ ...draft, steps: 5 }, model).steps).toBe(5);
});

test("the values of a stored clip fill the form, and sending that form asks for the same values", () => {
  const stored = {
    model: "tiny-t2v-a14b",
    prompt: "a red circle",
    negative_prompt: "blur",
    width: 96,
    height: 64,
    num_frames: 17,
    fps: 8,
    steps: 12,
    guidance_scale: 4,
    guidance_scale_2: 3,
    flow_shift: 3,
    scheduler: "euler",
    seed: 7,
    image_fit: "crop",
    loras: [{ id: "l", strength: 1, strength_2: 0.5 }],
    crf: 17,
    keep_latents: true,
  };
  const body = bodyOf(draftOf(stored), model);
  expect(body).toMatchObject({
    model_type: "tiny-t2v-a14b",
    resolution: "96x64",
    num_frames: 17,
    seed: 7,
    scheduler: "euler",
  });
  expect(body).toMatchObject({ loras: stored.loras, steps: 12, keep_latents: true, negative_prompt: "blur" });
});

test("a difference is shown only where there is one", () => {
  expect(differences(EMPTY, EMPTY)).toEqual([]);
  expect(differences(EMPTY, { seed: 7, prompt: "" })).toEqual([{ field: "seed", now: "the model's own", later: "7" }]);
});

test("a length in seconds goes before a number of frames, and is left to the server to fit", () => {
  const body = bodyOf({ ...EMPTY, prompt: "x", seconds: 2, num_frames: 17 }, model);
  expect(body).toEqual({ model_type: "auto", prompt: "x", seconds: 2 });
  expect(stepsOf("best", 80, 100)).toBe(100);
});

test("a moved task has the place that was asked for, and the others keep their order", () => {
  const tasks = ["a", "b", "c", "d"].map(
    (id, place) => ({ id, status: "pending", queue_position: place + 1, created_at: id }) as Task,
  );
  const queue = { tasks } as never;
  fc.assert(
    fc.property(fc.constantFrom("a", "b", "c", "d"), fc.integer({ min: 1, max: 4 }), (id, position) => {
      const order = inOrder(moved(queue, id, position).tasks).map((task) => task.id);
      expect(order[position - 1]).toBe(id);
      expect(order.filter((one) => one !== id)).toEqual(["a", "b", "c", "d"].filter((one) => one !== id));
    }),
  );
});
