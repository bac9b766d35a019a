/** From places in a list to days and back, for the scale beside it: the numbers of the days add up to places. */

import type { Schemas } from "@/http/client";

export type Day = Schemas["DayCount"];

export type Timeline = {
  /** In the order of the list. */
  days: Day[];
  /** Place of the first clip of each day. */
  starts: number[];
  count: number;
};

export type Tick = { day: string; index: number; label: string };

/** `days` come newest first. */
export function timelineOf(days: readonly Day[], oldestFirst: boolean): Timeline {
  const ordered = oldestFirst ? [...days].reverse() : [...days];
  const starts: number[] = [];
  let count = 0;
  for (const day of ordered) {
    starts.push(count);
    count += day.videos;
  }
  return { days: ordered, starts, count };
}

/** The number of the day at a place of the list, -1 if there is none. */
export function dayAt({ starts, count }: Timeline, index: number): number {
  if (count === 0) return -1;
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] as number) <= index) low = middle;
    else high = middle - 1;
  }
  return low;
}

function date(day: string): Date {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year as number, (month as number) - 1, date);
}

/** A day as people read it. */
export function dayInWords(day: string): string {
  return date(day).toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}

/** The first clips of years, months or days, as many as fit `most` and no two closer than the room of a label. */
export function ticksOf(timeline: Timeline, most: number): Tick[] {
  const { days, starts, count } = timeline;
  if (count === 0 || most < 1) return [];
  const units = [
    { of: (day: string) => day, words: { day: "numeric", month: "short" } as const },
    { of: (day: string) => day.slice(0, 7), words: { month: "short", year: "numeric" } as const },
    { of: (day: string) => day.slice(0, 4), words: { year: "numeric" } as const },
  ];
  const room = count / most;
  for (const { of, words } of units) {
    const groups = days
      .map((one, place) => ({ day: one.day, index: starts[place] as number }))
      .filter((one, place) => {
        const before = days[place - 1];
        return before === undefined || of(before.day) !== of(one.day);
      });
    // More groups than labels have room for: a wider unit reads better, unless it is the widest.
    if (groups.length > most && words !== units.at(-1)?.words) continue;
    let last = -Infinity;
    const ticks: Tick[] = [];
    for (const { day, index } of groups) {
      if (index - last < room) continue;
      ticks.push({ day, index, label: date(day).toLocaleDateString([], words) });
      last = index;
    }
    return ticks;
  }
  return [];
}
