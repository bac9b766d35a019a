import { expect, test } from "vitest";
import { filtersOf, inWords, queryOf, unfiltered } from "./filters";

test("an address becomes a query of the server, and nonsense in it is left out", () => {
  expect(queryOf({})).toEqual({ sort: "newest" });
  expect(queryOf({ search: "red", model: "tiny", tag: "sea", favourite: true, sort: "largest", trash: true })).toEqual({
    search: "red",
    model: ["tiny"],
    tag: ["sea"],
    favourite: true,
    trash: true,
    sort: "largest",
  });
  expect(queryOf({ mode: "no", sort: "no", after: "never" })).toEqual({ sort: "newest" });
});

test("days are those of this clock, and the last one counts", () => {
  const { after, before } = queryOf({ after: "2026-03-01", before: "2026-03-01" });
  expect(after).toBe(new Date(2026, 2, 1).toISOString());
  expect(before).toBe(new Date(2026, 2, 2).toISOString());
});

test("filters can be counted, read and taken away; order and trash are none", () => {
  const search = { search: "red", favourite: true, board: "b1", sort: "oldest", trash: true, clip: "x" };
  expect(filtersOf(search)).toEqual(["search", "favourite", "board"]);
  expect(filtersOf(search).map((name) => inWords(name, search, "Sea"))).toEqual(["“red”", "Favourites", "Sea"]);
  expect(unfiltered(search)).toEqual({ sort: "oldest", trash: true, clip: "x" });
  expect(inWords("board", { board: "none" })).toBe("On no board");
});
