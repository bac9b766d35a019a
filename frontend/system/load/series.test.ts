import { describe, expect, it } from "vitest";
import { columns, joined, type Sample, severity, summary, withSample } from "./series";

const at = (seconds: number, cpu = 10): Sample => ({ at: seconds, cpu, ram: 20, gpu: null, vram: null });

describe("live samples", () => {
  it("push out those that are too old, and never go back in time", () => {
    const samples = [at(0), at(10), at(20)];
    expect(withSample(samples, at(305), 300).map((one) => one.at)).toEqual([10, 20, 305]);
    expect(withSample(samples, at(20), 300)).toBe(samples);
  });

  it("go on where the stored ones end", () => {
    expect(joined([at(0), at(30), at(60)], [at(50), at(51)]).map((one) => one.at)).toEqual([0, 30, 50, 51]);
    expect(joined([at(0)], [])).toHaveLength(1);
  });
});

it("a pause is a gap in the line", () => {
  const [times, values] = columns([at(0), at(30), at(60), at(1000), at(1030)], "cpu");
  expect(times).toEqual([0, 30, 60, 530, 1000, 1030]);
  expect(values[3]).toBeNull();
  expect(columns([at(0), at(30)], "gpu")[1]).toEqual([null, null]);
});

it("the table has means and peaks of equal spans", () => {
  const samples = Array.from({ length: 100 }, (_, place) => at(place, place === 55 ? 90 : 10));
  const rows = summary(samples, "cpu", 10);
  expect(rows).toHaveLength(10);
  expect(rows.filter((row) => row.most === 90)).toHaveLength(1);
  expect(rows[0]?.mean).toBe(10);
  expect(summary(samples, "vram")).toEqual([]);
});

it("limits make colours", () => {
  expect([50, 75, 90].map((share) => severity(share, 75, 90))).toEqual(["good", "warn", "danger"]);
});
