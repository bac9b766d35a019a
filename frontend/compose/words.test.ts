import fc from "fast-check";
import { expect, test } from "vitest";
import { compared } from "./words";

test("what is kept and removed is the old text, what is kept and added the new one", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom("a", "b", "cat", " ", "  ")),
      fc.array(fc.constantFrom("a", "cat", " ")),
      (a, b) => {
        const pieces = compared(a.join(""), b.join(""));
        const join = (...kinds: string[]) =>
          pieces
            .filter((one) => kinds.includes(one.kind))
            .map((one) => one.text)
            .join("");
        expect(join("same", "removed")).toBe(a.join(""));
        expect(join("same", "added")).toBe(b.join(""));
      },
    ),
  );
});

test("words that are added behind a prompt leave the prompt whole", () => {
  expect(compared("a red cat", "a red cat, soft light")).toEqual([
    { kind: "same", text: "a red cat" },
    { kind: "added", text: ", soft light" },
  ]);
});
