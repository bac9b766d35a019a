/** The gallery: every finished clip, those being made first, with filters in the address and one clip opened over it. */

import { useNavigate, useSearch } from "@tanstack/react-router";
import {
  Check,
  CheckCheck,
  Columns2,
  Eye,
  FolderInput,
  Heart,
  Images,
  Search,
  SearchX,
  Tag,
  Trash2,
  X,
} from "lucide-react";
import { useEffect, useMemo, useRef } from "react";
import { useCommands } from "@/app/commands";
import { counted } from "@/app/format";
import { openWindow } from "@/app/window";
import { ProblemNote } from "@/http/problem-note";
import { useAllowed } from "@/system/session";
import { Button } from "@/ui/button";
import { Empty } from "@/ui/status";
import { say } from "@/ui/toasts";
import { useActions, useEntries } from "./actions";
import { BulkBar } from "./bulk-bar";
import { useDeeds } from "./deeds";
import { FilterBar, useFilters } from "./filter-bar";
import { filtersOf, unfiltered } from "./filters";
import { Grid } from "./grid/grid";
import { useRunning } from "./grid/running-tile";
import { timelineOf } from "./grid/timeline";
import { rememberSearch, useDays, useIds } from "./lists";
import { choose, letGo, NOBODY, toggle, useSelection } from "./selection";
import { Viewer } from "./viewer/viewer";
import { GalleryWindows, openGalleryWindow } from "./windows";

/** Most clips that one key selects. */
const MOST_CHOSEN = 10_000;

export default function GalleryPage() {
  const search = useSearch({ from: "/gallery" });
  const navigate = useNavigate({ from: "/gallery" });
  const change = useFilters();
  const allowed = useAllowed("generate");
  const deeds = useDeeds();
  const actions = useActions(deeds);
  const field = useRef<HTMLInputElement>(null);
  const { data: ids, error, refetch } = useIds(search);
  const inTime = search.sort === undefined || search.sort === "newest" || search.sort === "oldest";
  const { data: days } = useDays(search, inTime);
  const timeline = useMemo(
    () => (inTime && days ? timelineOf(days, search.sort === "oldest") : null),
    [days, inTime, search.sort],
  );
  const filtered = filtersOf(search).length > 0;
  const running = useRunning(ids, !filtered && !search.trash);
  const { chosen, focus } = useSelection();
  const open = search.clip !== undefined;
  const { clip: _, ...list } = search;
  const name = JSON.stringify(list);

  useEffect(() => rememberSearch(search), [search]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a selection belongs to one list
  useEffect(() => () => useSelection.setState(NOBODY), [name]);

  const show = (clip: string | undefined, replace = false) =>
    void navigate({ search: (now) => ({ ...now, clip }), replace, resetScroll: false });
  const beside = (id: string) => {
    const index = ids?.indexOf(id) ?? -1;
    return ids?.at(index + 1) || ids?.at(index - 1) || "";
  };
  const entries = useEntries({ actions, allowed, open: show, beside });
  /** What a key acts on: the selection, or the clip of the keyboard. */
  const acted = chosen.size > 0 ? [...chosen] : focus && ids && ids.indexOf(focus) >= 0 ? [focus] : [];
  const [a, b] = acted;
  const able = !open && allowed;
  const inTrash = search.trash ?? false;
  /** Does something to what keys act on; without a clip, says how one is reached. */
  function act(deed: (ids: string[]) => void) {
    if (acted.length > 0) deed(acted);
    else say({ title: "Which clip?", text: "Arrows go through the clips, X selects them." });
  }

  function all() {
    if (!ids) return;
    if (ids.length > MOST_CHOSEN) say({ title: `The first ${MOST_CHOSEN.toLocaleString()} clips are selected` });
    choose(ids.between(0, Math.min(ids.length, MOST_CHOSEN) - 1));
  }

  useCommands([
    {
      id: "gallery.search",
      title: "Search the gallery",
      group: "Gallery",
      icon: Search,
      key: "/",
      enabled: !open,
      run: () => field.current?.focus(),
    },
    {
      id: "gallery.open",
      title: "Open the clip",
      group: "Gallery",
      icon: Eye,
      key: "enter",
      enabled: !open,
      run: () => (running.some((task) => task.id === focus) ? openWindow("queue") : act(() => show(focus || a))),
    },
    {
      id: "gallery.select",
      title: "Select or let go",
      group: "Gallery",
      icon: CheckCheck,
      key: "x",
      enabled: !open,
      run: () => focus && toggle(focus),
    },
    {
      id: "gallery.all",
      title: "Select all",
      group: "Gallery",
      icon: CheckCheck,
      key: "mod+a",
      enabled: !open,
      run: all,
    },
    {
      id: "gallery.none",
      title: "Select nothing",
      group: "Gallery",
      icon: X,
      key: "escape",
      enabled: !open && chosen.size > 0,
      run: () => letGo(),
    },
    {
      id: "gallery.favourite",
      title: "Favourite or not",
      group: "Gallery",
      icon: Heart,
      key: "f",
      enabled: able && !inTrash,
      run: () => act(actions.favourite),
    },
    {
      id: "gallery.tag",
      title: "Change tags",
      group: "Gallery",
      icon: Tag,
      key: "t",
      enabled: able && !inTrash,
      run: () => act((some) => openGalleryWindow({ kind: "tags", ids: some })),
    },
    {
      id: "gallery.board",
      title: "Put on a board",
      group: "Gallery",
      icon: FolderInput,
      key: "b",
      enabled: able && !inTrash,
      run: () => act((some) => openGalleryWindow({ kind: "board", ids: some })),
    },
    {
      id: "gallery.compare",
      title: "Compare two clips",
      group: "Gallery",
      icon: Columns2,
      key: "c",
      enabled: !open && !inTrash,
      run: () => act(() => a && actions.compare(a, b ?? beside(a))),
    },
    {
      id: "gallery.trash",
      title: inTrash ? "Delete for good" : "Move to the trash",
      group: "Gallery",
      icon: Trash2,
      key: "delete",
      enabled: able,
      run: () =>
        act((some) => (inTrash ? openGalleryWindow({ kind: "delete", ids: some }) : actions.trash.mutate(some))),
    },
    {
      id: "gallery.bin",
      title: inTrash ? "Leave the trash" : "Show the trash",
      group: "Gallery",
      icon: Trash2,
      enabled: !open,
      run: () => change({ trash: inTrash ? undefined : true }),
    },
  ]);

  return (
    <div className="relative h-full">
      <div className="flex h-full flex-col" inert={open}>
        <header className="space-y-2 px-3 pt-3 pb-3 md:px-4">
          <div className="flex min-h-9 items-center gap-3 pr-44">
            <h1 className="text-lg font-semibold">{inTrash ? "Trash" : "Gallery"}</h1>
            <p role="status" data-testid="gallery-count" className="truncate text-soft">
              {ids && counted(ids.length, "clip")}
            </p>
            {inTrash && ids !== undefined && ids.length > 0 && (
              <Button
                size="small"
                kind="danger"
                disabled={!allowed}
                onClick={() => openGalleryWindow({ kind: "empty" })}
              >
                Empty<span className="max-sm:sr-only"> the trash</span>
              </Button>
            )}
          </div>
          <FilterBar search={search} field={field} />
        </header>
        <div className="relative min-h-0 flex-1">
          {error && !ids ? (
            <div className="p-4">
              <ProblemNote error={error} retry={() => void refetch()} />
            </div>
          ) : ids && ids.length + running.length === 0 ? (
            <Nothing trash={inTrash} filtered={filtered} onAll={() => void navigate({ search: unfiltered(search) })} />
          ) : (
            <Grid
              ids={ids}
              running={running}
              timeline={timeline}
              name={name}
              covered={open}
              onOpen={show}
              onTask={() => openWindow("queue")}
              onFavourite={(id) => allowed && actions.favourite([id])}
              entriesOf={(id) =>
                id === ""
                  ? [{ label: "Select all", icon: CheckCheck, run: all }]
                  : [
                      { label: chosen.has(id) ? "Let go" : "Select", icon: Check, run: () => toggle(id) },
                      ...entries(chosen.has(id) ? [...chosen] : [id]),
                    ]
              }
            />
          )}
        </div>
        <BulkBar
          count={chosen.size}
          trash={inTrash}
          onFavourite={() => actions.favourite(acted)}
          onTag={() => openGalleryWindow({ kind: "tags", ids: acted })}
          onBoard={() => openGalleryWindow({ kind: "board", ids: acted })}
          onCompare={() => a && b && actions.compare(a, b)}
          onTrash={() => actions.trash.mutate(acted)}
          onRestore={() => actions.restore.mutate(acted)}
          onDelete={() => openGalleryWindow({ kind: "delete", ids: acted })}
          onNone={() => letGo()}
        />
      </div>
      {search.clip !== undefined && (
        <Viewer
          id={search.clip}
          ids={ids}
          actions={actions}
          allowed={allowed}
          onGo={(id) => show(id, true)}
          onClose={() => show(undefined)}
        />
      )}
      <GalleryWindows />
    </div>
  );
}

function Nothing({ trash, filtered, onAll }: { trash: boolean; filtered: boolean; onAll: () => void }) {
  const navigate = useNavigate();
  if (filtered) {
    return (
      <Empty icon={SearchX} title="No clip fits these filters">
        <Button onClick={onAll}>Take the filters away</Button>
      </Empty>
    );
  }
  if (trash)
    return (
      <Empty icon={Trash2} title="The trash is empty">
        Clips that you delete wait here for some days before they are gone for good.
      </Empty>
    );
  return (
    <Empty icon={Images} title="No clips yet">
      <p className="mb-3">Everything that you make appears here, while it is being made and after.</p>
      <Button kind="primary" onClick={() => void navigate({ to: "/" })}>
        Make the first one
      </Button>
    </Empty>
  );
}
