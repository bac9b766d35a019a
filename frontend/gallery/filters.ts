/** The filters in the address of the gallery: what the server is asked for, and how they read in words. */

import type { GallerySearch } from "@/app/router";
import type { paths } from "@/http/schema.gen";

type Query = NonNullable<paths["/api/v1/outputs/days"]["get"]["parameters"]["query"]>;

export const SORTS = [
  { value: "newest", label: "Newest first" },
  { value: "oldest", label: "Oldest first" },
  { value: "longest", label: "Longest first" },
  { value: "largest", label: "Largest first" },
] as const;

export const MODES = [
  { value: "t2v", label: "From text" },
  { value: "i2v", label: "From an image" },
  { value: "ti2v", label: "From text or an image" },
] as const;

/** Names of the filters, without the order and the clip that is open. */
const FILTERS = [
  "search",
  "model",
  "mode",
  "after",
  "before",
  "favourite",
  "mock",
  "imported",
  "tag",
  "board",
] as const;
export type FilterName = (typeof FILTERS)[number];

/** A day of this browser's clock as the moment at which it begins, `days` later. */
function midnight(day: string, days = 0): string | undefined {
  const [year, month, date] = day.split("-").map(Number);
  const at = new Date(year ?? Number.NaN, (month ?? 1) - 1, (date ?? 1) + days);
  return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
}

function oneOf<T extends string>(value: string | undefined, choices: readonly { value: T }[]): T | undefined {
  return choices.find((choice) => choice.value === value)?.value;
}

/** What the server is asked for; `before` is a day in the address, and includes that day. */
export function queryOf(search: GallerySearch): Query {
  const mode = oneOf(search.mode, MODES);
  const query: Query = {
    search: search.search,
    model: search.model ? [search.model] : undefined,
    mode: mode ? [mode] : undefined,
    after: search.after ? midnight(search.after) : undefined,
    before: search.before ? midnight(search.before, 1) : undefined,
    favourite: search.favourite,
    mock: search.mock,
    imported: search.imported,
    tag: search.tag ? [search.tag] : undefined,
    board: search.board,
    trash: search.trash,
    sort: oneOf(search.sort, SORTS) ?? "newest",
  };
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as Query;
}

/** The filters that are set. */
export function filtersOf(search: GallerySearch): FilterName[] {
  return FILTERS.filter((name) => search[name] !== undefined);
}

/** The address without any filter; the order, the trash and the clip stay. */
export function unfiltered(search: GallerySearch): GallerySearch {
  const { sort, trash, clip } = search;
  return { sort, trash, clip };
}

/** A filter as a few words; `board` is the name of the board. */
export function inWords(name: FilterName, search: GallerySearch, board?: string): string {
  const value = String(search[name]);
  switch (name) {
    case "search":
      return `“${value}”`;
    case "mode":
      return MODES.find((mode) => mode.value === value)?.label ?? value;
    case "after":
      return `from ${value}`;
    case "before":
      return `until ${value}`;
    case "favourite":
      return "Favourites";
    case "mock":
      return "Mocks";
    case "imported":
      return "Uploaded";
    case "tag":
      return `#${value}`;
    case "board":
      return value === "none" ? "On no board" : (board ?? "A board");
    default:
      return value;
  }
}
