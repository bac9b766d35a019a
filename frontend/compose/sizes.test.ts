import { expect, test } from "vitest";
import type { Model } from "@/tasks/draft";
import { sizesOf } from "./sizes";

const models = [
  { defaults: { resolution: "1280x720" }, limits: { size_multiple: 16, min_side: 128, max_pixels: 2088960 } },
  { defaults: { resolution: "1280x704" }, limits: { size_multiple: 32, min_side: 128, max_pixels: 2088960 } },
  { defaults: { resolution: "96x96" }, limits: { size_multiple: 16, min_side: 64, max_pixels: 65536 } },
] as unknown as Model[];

test.each(models)("every listed size can be made, the model's own among them", (model) => {
  const sizes = sizesOf(model);
  const limits = model.limits as Record<string, number>;
  expect(sizes.map((size) => size.value)).toContain(model.defaults.resolution);
  expect(new Set(sizes.map((size) => size.value)).size).toBe(sizes.length);
  expect(sizes.length).toBeGreaterThan(5);
  for (const { value } of sizes) {
    const [width = 0, height = 0] = value.split("x").map(Number);
    expect(width % (limits.size_multiple ?? 1)).toBe(0);
    expect(height % (limits.size_multiple ?? 1)).toBe(0);
    expect(Math.min(width, height)).toBeGreaterThanOrEqual(limits.min_side ?? 0);
    expect(width * height).toBeLessThanOrEqual(limits.max_pixels ?? 0);
  }
});
