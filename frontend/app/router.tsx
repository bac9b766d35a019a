/** The addresses of the page. The server sends the page for each of these paths (`backend/api/http/pages.py`). */

import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import ComposePage from "@/compose/compose-page";
import { PREFIX } from "@/http/client";
import { ErrorPage, MissingPage } from "./failures";
import { Shell } from "./shell";

const root = createRootRoute({ component: Shell, errorComponent: ErrorPage, notFoundComponent: MissingPage });

/** Filters of the gallery and the clip that is open in it; all of them can be shared as a link. */
export type GallerySearch = {
  search?: string;
  model?: string;
  mode?: string;
  after?: string;
  before?: string;
  favourite?: boolean;
  mock?: boolean;
  imported?: boolean;
  trash?: boolean;
  tag?: string;
  board?: string;
  sort?: string;
  clip?: string;
};

const TEXTS = ["search", "model", "mode", "after", "before", "tag", "board", "sort", "clip"] as const;
const FLAGS = ["favourite", "mock", "imported", "trash"] as const;

function gallerySearch(from: Record<string, unknown>): GallerySearch {
  const texts = TEXTS.filter((name) => from[name] != null && from[name] !== "").map((name) => [
    name,
    String(from[name]),
  ]);
  const flags = FLAGS.filter((name) => from[name] === true || from[name] === "true").map((name) => [name, true]);
  return Object.fromEntries([...texts, ...flags]) as GallerySearch;
}

const compose = createRoute({ getParentRoute: () => root, path: "/", component: ComposePage });
const gallery = createRoute({
  getParentRoute: () => root,
  path: "/gallery",
  validateSearch: gallerySearch,
  component: lazyRouteComponent(() => import("@/gallery/gallery-page")),
});
const compare = createRoute({
  getParentRoute: () => root,
  path: "/compare",
  validateSearch: (from): { a: string; b: string } => ({ a: String(from.a ?? ""), b: String(from.b ?? "") }),
  component: lazyRouteComponent(() => import("@/gallery/compare-page")),
});
const models = createRoute({
  getParentRoute: () => root,
  path: "/models",
  component: lazyRouteComponent(() => import("@/models/models-page")),
});
const loras = createRoute({
  getParentRoute: () => root,
  path: "/loras",
  component: lazyRouteComponent(() => import("@/loras/loras-page")),
});
const system = createRoute({
  getParentRoute: () => root,
  path: "/system",
  component: lazyRouteComponent(() => import("@/system/system-page")),
});
const settings = createRoute({
  getParentRoute: () => root,
  path: "/settings",
  component: lazyRouteComponent(() => import("@/settings/settings-page")),
});

export const router = createRouter({
  routeTree: root.addChildren([compose, gallery, compare, models, loras, system, settings]),
  basepath: PREFIX || "/",
  defaultPreload: "intent",
  scrollRestoration: false,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
