import fc from "fast-check";
import { expect, test } from "vitest";
import { IdList } from "./id-list";

const lists = fc.uniqueArray(fc.uuid(), { maxLength: 40 });

test("what goes in comes out, in order", () => {
  fc.assert(
    fc.property(lists, (ids) => {
      const list = IdList.of(ids);
      expect(list.length).toBe(ids.length);
      expect(ids.map((_, index) => list.at(index))).toEqual(ids);
      expect(ids.map((id) => list.indexOf(id))).toEqual(ids.map((_, index) => index));
    }),
  );
});

test("places outside the list and unknown ids are nothing", () => {
  const list = IdList.of(["0b5f7f0e-8a54-4b8e-9d5a-0f2d5d1b2c3d"]);
  expect([list.at(-1), list.at(1)]).toEqual(["", ""]);
  expect(list.indexOf("nobody")).toBe(-1);
  expect(list.indexOf("0b5f7f0e-8a54-4b8e-9d5a-0f2d5d1b2c3e")).toBe(-1);
});

test("taking ids out leaves the others in order", () => {
  fc.assert(
    fc.property(lists, fc.array(fc.nat(39)), (ids, places) => {
      const gone = new Set(places.map((place) => ids[place]).filter((id) => id !== undefined));
      const list = IdList.of(ids).without(gone);
      const left = ids.filter((id) => !gone.has(id));
      expect(left.map((_, index) => list.at(index))).toEqual(left);
      expect(list.length).toBe(left.length);
    }),
  );
});

test("a range is taken in both directions and cut at the ends", () => {
  const ids = ["1", "2", "3", "4"].map((digit) => `${digit.repeat(8)}-0000-4000-8000-000000000000`);
  const list = IdList.of(ids);
  expect(list.between(1, 2)).toEqual(ids.slice(1, 3));
  expect(list.between(3, 2)).toEqual(ids.slice(2));
  expect(list.between(-5, 99)).toEqual(ids);
});

test("the last of a million is found", () => {
  const packed = new Uint8Array(16_000_000);
  packed.fill(7);
  packed.set([1, 2, 3], packed.length - 3);
  const list = new IdList(packed.buffer);
  expect(list.indexOf(list.at(999_999))).toBe(999_999);
});
