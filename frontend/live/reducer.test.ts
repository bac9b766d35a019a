import { QueryClient } from "@tanstack/react-query";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { KEYS } from "@/http/queries";
import type { Message } from "./messages";
import { apply, type Queue, Refresher, type Task, withProgress, withUpdate } from "./reducer";

const task = (id: string, status: Task["status"] = "processing"): Task =>
  ({ id, status, progress_percent: 10, progress: 10, prompt: id, message: null }) as Task;
const queue = (...tasks: Task[]): Queue => ({ tasks, queue: [], paused: false }) as unknown as Queue;

const status = fc.constantFrom("pending", "processing", "paused", "completed", "failed", "cancelled");
const message = fc.oneof(
  fc.record({
    type: fc.constant("task_update" as const),
    data: fc.record({ task_id: fc.constantFrom("a", "b", "c"), status, progress: fc.integer({ min: 0, max: 100 }) }),
  }),
  fc.record({
    type: fc.constant("detailed_generation_progress" as const),
    data: fc.record({
      task_id: fc.constantFrom("a", "b", "c"),
      stage: fc.constantFrom("generating", "saving"),
      status,
      progress: fc.integer({ min: 0, max: 100 }),
      estimated_time_remaining: fc.constant(null),
    }),
  }),
);

test("whatever arrives in whatever order: the last state holds, and progress never goes back while a task runs", () => {
  vi.useFakeTimers();
  fc.assert(
    fc.property(fc.array(message), (messages) => {
      const cache = new QueryClient();
      const refresh = new Refresher(cache);
      cache.setQueryData(KEYS.queue, queue(task("a"), task("b", "pending")));
      const last = new Map<string, string>([
        ["a", "processing"],
        ["b", "pending"],
      ]);
      for (const one of messages) {
        const before = new Map(cache.getQueryData<Queue>(KEYS.queue)?.tasks.map((it) => [it.id, it]));
        apply(cache, refresh, one as Message);
        if (one.type === "task_update") last.set(one.data.task_id, one.data.status);
        for (const now of cache.getQueryData<Queue>(KEYS.queue)?.tasks ?? []) {
          expect(now.status).toBe(last.get(now.id));
          if (one.type === "detailed_generation_progress") {
            expect(now.progress_percent).toBeGreaterThanOrEqual(before.get(now.id)?.progress_percent ?? 0);
          }
        }
      }
      expect(cache.getQueryData<Queue>(KEYS.queue)?.tasks).toHaveLength(2);
    }),
  );
  vi.clearAllTimers();
  vi.useRealTimers();
});

test("a list without the task stays the same object, so that nothing is drawn again", () => {
  const before = queue(task("a"));
  expect(withUpdate(before, { task_id: "x", status: "failed", progress: 0 })).toBe(before);
});

test("a late report does not wake a task that ended", () => {
  const ended = queue(task("a", "completed"));
  const report = { task_id: "a", stage: "generating", status: "processing", progress: 50, estimated_time_remaining: 3 };
  expect(withProgress(ended, report).tasks[0]?.status).toBe("completed");
});

test("many wishes for one entry are one question, and there is one after the last wish", () => {
  vi.useFakeTimers();
  const cache = new QueryClient();
  const asked = vi.spyOn(cache, "invalidateQueries");
  const refresh = new Refresher(cache, 100);
  for (let i = 0; i < 50; i++) refresh.wish(KEYS.queue);
  vi.advanceTimersByTime(101);
  expect(asked).toHaveBeenCalledTimes(1);
  refresh.wish(KEYS.queue);
  vi.advanceTimersByTime(101);
  expect(asked).toHaveBeenCalledTimes(2);
  vi.useRealTimers();
});

test("after a gap everything is read anew", () => {
  const cache = new QueryClient();
  const asked = vi.spyOn(cache, "invalidateQueries");
  apply(cache, new Refresher(cache), { type: "replay_gap", data: { reason: "removed" } });
  expect(asked).toHaveBeenCalledWith();
});
