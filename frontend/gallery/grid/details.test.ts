import { expect, test, vi } from "vitest";
import { Details, type Video } from "./details";

const video = (id: string, more: Partial<Video> = {}) => ({ id, favourite: false, ...more }) as Video;

/** A server that answers when it is told to. */
function server() {
  const calls: {
    ids: string[];
    signal: AbortSignal;
    answer: (missing?: string[]) => Promise<void>;
    fail: () => Promise<void>;
  }[] = [];
  const fetch = (ids: string[], signal: AbortSignal) =>
    new Promise<{ videos: Video[]; missing: string[] }>((resolve, reject) => {
      const settled = () => new Promise<void>((done) => queueMicrotask(() => queueMicrotask(done)));
      calls.push({
        ids,
        signal,
        answer: (missing = []) => {
          resolve({ videos: ids.filter((id) => !missing.includes(id)).map((id) => video(id)), missing });
          return settled();
        },
        fail: () => {
          reject(new Error("no"));
          return settled();
        },
      });
    });
  return { calls, fetch };
}

const names = (count: number, start = 0) => Array.from({ length: count }, (_, index) => `id-${start + index}`);

test("asks once for what is in sight, and tells who watches", async () => {
  const { calls, fetch } = server();
  const details = new Details(fetch);
  const seen = vi.fn();
  details.subscribe("id-1", seen);
  details.want("grid", names(3));
  details.want("grid", names(3));
  expect(calls.map((call) => call.ids)).toEqual([names(3)]);
  await calls[0]?.answer(["id-2"]);
  expect(seen).toHaveBeenCalledTimes(1);
  expect(details.get("id-1")?.id).toBe("id-1");
  expect(details.get("id-2")).toBeNull();
  details.want("grid", names(3));
  expect(calls).toHaveLength(1);
});

test("at most two requests run, and the rest follows", async () => {
  const { calls, fetch } = server();
  const details = new Details(fetch);
  details.want("grid", names(200));
  expect(calls.map((call) => call.ids.length)).toEqual([60, 60]);
  await calls[0]?.answer();
  expect(calls).toHaveLength(3);
  await calls[1]?.answer();
  await calls[2]?.answer();
  expect(calls.flatMap((call) => call.ids)).toEqual(names(200));
});

test("what left the screen is no longer asked for", async () => {
  const { calls, fetch } = server();
  const details = new Details(fetch);
  details.want("grid", names(5));
  details.want("grid", names(5, 100));
  expect(calls[0]?.signal.aborted).toBe(true);
  expect(calls[1]?.ids).toEqual(names(5, 100));
  await calls[0]?.answer();
  expect(details.get("id-0")).toBeUndefined();
  details.want("viewer", ["id-7"]);
  expect(calls[1]?.signal.aborted).toBe(false);
});

test("keeps a bounded number, but what is on the screen stays", async () => {
  const { calls, fetch } = server();
  const details = new Details(fetch, 10);
  details.subscribe("id-0", () => undefined);
  for (let start = 0; start < 100; start += 10) {
    details.want("grid", names(10, start));
    await calls.at(-1)?.answer();
    expect(details.size).toBeLessThanOrEqual(11);
  }
  expect(details.get("id-0")?.id).toBe("id-0");
  expect(details.get("id-5")).toBeUndefined();
});

test("a change is shown at once and replaced by what the server says", async () => {
  const { calls, fetch } = server();
  const details = new Details(fetch);
  details.want("grid", ["id-0"]);
  await calls[0]?.answer();
  details.change(["id-0", "unknown"], (one) => ({ ...one, favourite: true }));
  expect(details.get("id-0")?.favourite).toBe(true);
  details.refresh("id-0");
  expect(details.get("id-0")?.favourite).toBe(true);
  await calls[1]?.answer();
  expect(details.get("id-0")?.favourite).toBe(false);
});

test("a failed request is repeated after a pause", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const { calls, fetch } = server();
  const details = new Details(fetch);
  details.want("grid", ["id-0"]);
  await calls[0]?.fail();
  expect(calls).toHaveLength(1);
  vi.advanceTimersByTime(2_000);
  expect(calls).toHaveLength(2);
  vi.useRealTimers();
});
