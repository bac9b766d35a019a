import { expect, test } from "vitest";
import { dayAt, ticksOf, timelineOf } from "./timeline";

const DAYS = [
  { day: "2026-11-28", videos: 5 },
  { day: "2026-11-27", videos: 1 },
  { day: "2026-10-01", videos: 4 },
  { day: "2025-12-31", videos: 10 },
];

test("places belong to days, in both directions", () => {
  const newest = timelineOf(DAYS, false);
  expect(newest.starts).toEqual([0, 5, 6, 10]);
  expect([0, 4, 5, 6, 9, 10, 19].map((index) => newest.days[dayAt(newest, index)]?.day)).toEqual([
    "2026-11-28",
    "2026-11-28",
    "2026-11-27",
    "2026-10-01",
    "2026-10-01",
    "2025-12-31",
    "2025-12-31",
  ]);
  const oldest = timelineOf(DAYS, true);
  expect(oldest.days[dayAt(oldest, 0)]?.day).toBe("2025-12-31");
  expect(oldest.count).toBe(20);
  expect(dayAt(timelineOf([], false), 3)).toBe(-1);
});

test("ticks are days, months or years, by the room there is", () => {
  const timeline = timelineOf(DAYS, false);
  expect(ticksOf(timeline, 20).map((tick) => tick.day)).toEqual([
    "2026-11-28",
    "2026-11-27",
    "2026-10-01",
    "2025-12-31",
  ]);
  expect(ticksOf(timeline, 3).map((tick) => tick.day)).toEqual(["2026-11-28", "2025-12-31"]);
  expect(ticksOf(timeline, 2).map((tick) => tick.label)).toEqual(["2026", "2025"]);
  expect(ticksOf(timelineOf([], false), 5)).toEqual([]);
});

test("labels never stand closer than their room", () => {
  const days = Array.from({ length: 4000 }, (_, index) => ({
    day: new Date(Date.UTC(2026, 10, 28) - index * 86_400_000).toISOString().slice(0, 10),
    videos: index % 7,
  }));
  const timeline = timelineOf(days, false);
  for (const most of [3, 8, 15]) {
    const ticks = ticksOf(timeline, most);
    expect(ticks.length).toBeGreaterThan(0);
    expect(ticks.length).toBeLessThanOrEqual(most);
  }
});
