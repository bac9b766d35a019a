/** Lists of the gallery, from the server: ids in order, days, tags, boards. */

import { keepPreviousData, type QueryClient, useQuery } from "@tanstack/react-query";
import type { GallerySearch } from "@/app/router";
import { api, data, type Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import { queryOf } from "./filters";
import { IdList } from "./grid/id-list";

export type Board = Schemas["BoardInfo"];

const IDS = [...KEYS.outputs, "ids"] as const;
/** How long a list that is not shown is kept, in milliseconds: one of a million ids is 16 MB. */
const FORGET = 30_000;

export function useIds(search: GallerySearch) {
  const query = queryOf(search);
  return useQuery({
    queryKey: [...IDS, query],
    queryFn: async ({ signal }) => {
      const call = api.GET("/api/v1/outputs/ids", {
        params: { query: { ...query, format: "packed" } },
        parseAs: "arrayBuffer",
        signal,
      });
      return new IdList((await data<ArrayBuffer | undefined>(call as never)) ?? new ArrayBuffer(0));
    },
    placeholderData: keepPreviousData,
    structuralSharing: false,
    gcTime: FORGET,
  });
}

/** Takes clips out of every list at once, before the server has answered. */
export function hideFromLists(cache: QueryClient, ids: readonly string[]): void {
  cache.setQueriesData<IdList>({ queryKey: IDS }, (list) => list?.without(ids));
}

export function refreshLists(cache: QueryClient): void {
  void cache.invalidateQueries({ queryKey: KEYS.outputs });
}

/** The days of a list, newest first; only lists in order of time have a scale of days. */
export function useDays(search: GallerySearch, enabled: boolean) {
  const { sort: _, ...filters } = queryOf(search);
  const query = { ...filters, utc_offset: -new Date().getTimezoneOffset() };
  return useQuery({
    queryKey: [...KEYS.outputs, "days", query],
    queryFn: ({ signal }) => data(api.GET("/api/v1/outputs/days", { params: { query }, signal })),
    select: (answer) => answer.days,
    placeholderData: keepPreviousData,
    enabled,
    gcTime: FORGET,
  });
}

export function useTags() {
  return useQuery({
    queryKey: [...KEYS.outputs, "tags"],
    queryFn: () => data(api.GET("/api/v1/outputs/tags")),
    select: (answer) => answer.tags,
  });
}

export function useBoards() {
  return useQuery({
    queryKey: [...KEYS.outputs, "boards"],
    queryFn: () => data(api.GET("/api/v1/boards")),
    select: (answer) => answer.boards,
  });
}

let last: GallerySearch = {};

/** Keeps the filters that were last looked at, so that other pages go through the same clips. */
export function rememberSearch({ clip: _, ...search }: GallerySearch): void {
  last = search;
}

export function lastSearch(): GallerySearch {
  return last;
}
