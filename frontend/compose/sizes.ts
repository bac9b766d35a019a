/** The picture sizes that a model can make, for a list to choose from. */

import type { Model } from "@/tasks/draft";

export type Size = { value: string; label: string };

const ASPECTS: [string, number][] = [
  ["16:9", 16 / 9],
  ["9:16", 9 / 16],
  ["1:1", 1],
  ["4:3", 4 / 3],
  ["3:4", 3 / 4],
];

/** Shares of the area of the model's own size; the largest that it can make is added. */
const AREAS = [0.5, 1];

/** The size with an aspect ratio and about an area, in multiples that the model needs; null when it is too small. */
function snapped(aspect: number, area: number, multiple: number, least: number): [number, number] | null {
  const snap = (side: number) => Math.max(multiple, Math.floor(side / multiple + 0.25) * multiple);
  const [width, height] = [snap(Math.sqrt(area * aspect)), snap(Math.sqrt(area / aspect))];
  return width < least || height < least ? null : [width, height];
}

export function sizesOf(model: Model): Size[] {
  const limits = model.limits as Record<string, number>;
  const [multiple, least, most] = [limits.size_multiple ?? 16, limits.min_side ?? 64, limits.max_pixels ?? 0];
  const [width, height] = String(model.defaults.resolution).split("x").map(Number);
  if (!width || !height) return [];
  const found = new Map<string, string>();
  found.set(`${width}x${height}`, nearestAspect(width / height));
  for (const share of [...AREAS, most / (width * height)]) {
    for (const [name, aspect] of ASPECTS) {
      const size = snapped(aspect, width * height * share, multiple, least);
      if (size && size[0] * size[1] <= most) {
        const value = `${size[0]}x${size[1]}`;
        if (!found.has(value)) found.set(value, name);
      }
    }
  }
  const area = (value: string) => value.split("x").reduce((product, side) => product * Number(side), 1);
  return [...found]
    .sort(([a], [b]) => area(a) - area(b))
    .map(([value, aspect]) => ({ value, label: `${value.replace("x", " × ")} · ${aspect}` }));
}

function nearestAspect(ratio: number): string {
  const distance = ([, aspect]: [string, number]) => Math.abs(Math.log(aspect / ratio));
  return [...ASPECTS].sort((a, b) => distance(a) - distance(b))[0]?.[0] ?? "";
}
