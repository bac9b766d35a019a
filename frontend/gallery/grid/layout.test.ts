import fc from "fast-check";
import { expect, test } from "vitest";
import { type Frame, furthest, LONGEST_PAGE, layoutOf, moved, rowsInSight, ScrollSpace, topToShow } from "./layout";

const frame = (changes: Partial<Frame> = {}) =>
  layoutOf({ count: 1000, width: 1200, viewport: 800, tile: 220, ...changes });
const frames = fc.record({
  count: fc.integer({ min: 0, max: 2_000_000 }),
  width: fc.integer({ min: 100, max: 4000 }),
  viewport: fc.integer({ min: 200, max: 3000 }),
  tile: fc.integer({ min: 120, max: 500 }),
  ratio: fc.constantFrom(1, 1.5, 2, 3),
});

test("tiles fill the width and never leave it", () => {
  fc.assert(
    fc.property(frames, (given) => {
      const { columns, width, gap, rows } = layoutOf(given);
      expect(columns * width + (columns - 1) * gap).toBeLessThanOrEqual(given.width + (columns === 1 ? 1 : 0));
      expect(rows * columns).toBeGreaterThanOrEqual(given.count);
      expect((rows - 1) * columns).toBeLessThan(Math.max(1, given.count));
    }),
  );
});

test("a phone has two columns", () => {
  expect(frame({ width: 336 }).columns).toBe(2);
});

test("the page never grows past what a browser can lay out", () => {
  for (const ratio of [1, 2, 3]) {
    const million = frame({ count: 1_000_000, ratio });
    expect(million.physical * ratio).toBeLessThanOrEqual(LONGEST_PAGE);
    expect(million.total).toBeGreaterThan(million.physical);
  }
  expect(frame().physical).toBe(frame().total);
});

test("rows in sight cover the window, and no more than a few rows around it", () => {
  fc.assert(
    fc.property(frames, fc.double({ min: 0, max: 1, noNaN: true }), (given, share) => {
      const layout = layoutOf(given);
      const top = share * furthest(layout);
      const [first, end] = rowsInSight(layout, top);
      expect(first * layout.pitch).toBeLessThanOrEqual(top);
      if (layout.total > 0)
        expect(end * layout.pitch).toBeGreaterThanOrEqual(Math.min(layout.total, top + layout.viewport));
      expect(end - first).toBeLessThanOrEqual(Math.ceil(layout.viewport / layout.pitch) + 3);
    }),
  );
});

test("a wheel moves the list by as many pixels as everywhere, also in a million tiles", () => {
  const layout = frame({ count: 1_000_000 });
  const space = new ScrollSpace(layout);
  space.go(7_000_000);
  const [top, bar] = [space.top, space.bar];
  space.scrolled(bar + 120);
  expect(space.top).toBe(top + 120);
  space.scrolled(bar + 40);
  expect(space.top).toBe(top + 40);
});

test("the scroll bar reaches both ends and every share between them", () => {
  const layout = frame({ count: 1_000_000 });
  const space = new ScrollSpace(layout);
  const room = layout.physical - layout.viewport;
  space.scrolled(room / 2);
  expect(space.top / furthest(layout)).toBeCloseTo(0.5, 5);
  space.scrolled(room);
  expect(space.top).toBe(furthest(layout));
  space.scrolled(0);
  expect(space.top).toBe(0);
});

test("steps of a wheel reach the end however far the bar lags behind, and no place is out of range", () => {
  fc.assert(
    fc.property(frames, fc.array(fc.integer({ min: -5000, max: 5000 }), { maxLength: 60 }), (given, steps) => {
      const layout = layoutOf(given);
      const space = new ScrollSpace(layout);
      const room = Math.max(0, layout.physical - layout.viewport);
      for (const [number, by] of steps.entries()) {
        space.scrolled(Math.max(0, Math.min(room, space.bar + by)));
        if (number % 5 === 4) space.settled();
        expect(space.top).toBeGreaterThanOrEqual(0);
        expect(space.top).toBeLessThanOrEqual(furthest(layout));
        expect(space.bar).toBeLessThanOrEqual(room);
      }
    }),
  );
  const million = frame({ count: 1_000_000 });
  const space = new ScrollSpace(million);
  space.go(furthest(million) - 300);
  for (let step = 0; step < 4; step += 1) {
    space.scrolled(Math.min(million.physical - million.viewport, space.bar + 120));
    space.settled();
  }
  expect(space.top).toBe(furthest(million));
});

test("going to a place and settling agree", () => {
  fc.assert(
    fc.property(frames, fc.double({ min: 0, max: 1, noNaN: true }), (given, share) => {
      const layout = layoutOf(given);
      const space = new ScrollSpace(layout);
      const bar = space.go(share * furthest(layout));
      const top = space.top;
      space.scrolled(bar);
      expect(space.top).toBeCloseTo(top, 6);
      expect(space.settled()).toBe(bar);
    }),
  );
});

test("another width keeps the tile at the upper edge in sight", () => {
  const space = new ScrollSpace(frame({ count: 1_000_000 }));
  space.go(4_000_000);
  const before = Math.floor(space.top / frame().pitch) * frame().columns;
  const narrow = frame({ count: 1_000_000, width: 700 });
  space.resized(narrow);
  const after = Math.floor(space.top / narrow.pitch) * narrow.columns;
  expect(Math.abs(after - before)).toBeLessThanOrEqual(narrow.columns + frame().columns);
});

test("keys move through rows and stop at the ends", () => {
  const layout = frame({ count: 12 });
  expect(layout.columns).toBe(5);
  expect(moved(layout, 0, "left")).toBe(0);
  expect(moved(layout, 4, "right")).toBe(5);
  expect(moved(layout, 7, "down")).toBe(11);
  expect(moved(layout, 5, "down")).toBe(10);
  expect(moved(layout, 1, "up")).toBe(1);
  expect(moved(layout, 11, "up")).toBe(6);
  expect(moved(layout, 6, "home")).toBe(0);
  expect(moved(layout, 6, "end")).toBe(11);
  expect(moved(layout, 0, "pagedown")).toBe(10);
});

test("a tile is brought into sight with the smallest movement", () => {
  const layout = frame();
  expect(topToShow(layout, 0, 500)).toBe(0);
  expect(topToShow(layout, layout.columns * 2, 0)).toBe(0);
  const far = topToShow(layout, 999, 0);
  expect(far).toBe(furthest(layout));
});
