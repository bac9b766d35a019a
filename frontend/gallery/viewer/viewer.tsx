/** One clip over the gallery, with its player, everything known of it, and the way to the clips beside it. */

import { useQuery } from "@tanstack/react-query";
import { ChevronLeft, ChevronRight, Columns2, Heart, ImageOff, Info, RotateCcw, Trash2, X } from "lucide-react";
import { useEffect, useMemo, useRef } from "react";
import { create } from "zustand";
import { useCommands, useShown } from "@/app/commands";
import { api, data } from "@/http/client";
import { KEYS } from "@/http/queries";
import { IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { Empty, Skeleton } from "@/ui/status";
import type { Actions } from "../actions";
import { details, useVideo } from "../grid/details";
import type { IdList } from "../grid/id-list";
import { posterOf } from "../media";
import { focusOn } from "../selection";
import { openGalleryWindow } from "../windows";
import { DetailsPanel } from "./details-panel";
import { Player } from "./player";

type ViewerProps = {
  id: string;
  ids: IdList | undefined;
  actions: Actions;
  allowed: boolean;
  onGo: (id: string) => void;
  onClose: () => void;
};

const useDetailsShown = create(() => ({ shown: window.innerWidth >= 1024 }));

export function Viewer({ id, ids, actions, allowed, onGo, onClose }: ViewerProps) {
  const known = useVideo(id);
  const { data: full } = useQuery({
    queryKey: [...KEYS.outputs, "one", id],
    queryFn: () =>
      data(api.GET("/api/v1/outputs/{output_id}", { params: { path: { output_id: id }, query: { trash: true } } })),
    retry: false,
  });
  // Marks come from the list of clips, where changes are seen at once; the record comes with the single clip alone.
  const video = known ? { ...known, metadata: full?.metadata } : known;
  const index = useMemo(() => ids?.indexOf(id) ?? -1, [ids, id]);
  const before = index > 0 ? (ids?.at(index - 1) ?? "") : "";
  const after = index >= 0 ? (ids?.at(index + 1) ?? "") : "";
  const { shown } = useDetailsShown();
  const frame = useRef<HTMLElement>(null);
  const player = useRef<HTMLVideoElement>(null);

  useEffect(() => {
    details.want("viewer", [id, after, before].filter(Boolean));
    focusOn(id);
    return () => details.want("viewer", []);
  }, [id, after, before]);
  useEffect(() => frame.current?.focus({ preventScroll: true }), []);

  const [previous, next] = [useVideo(before), useVideo(after)];
  useEffect(() => {
    for (const one of [next, previous]) if (one) new Image().src = posterOf(one);
  }, [next, previous]);

  function leave() {
    if (after || before) onGo(after || before);
    else onClose();
  }
  function trash() {
    if (!video || !allowed) return;
    if (video.trashed_at) openGalleryWindow({ kind: "delete", ids: [id] });
    else {
      actions.trash.mutate([id]);
      leave();
    }
  }
  const favourite = () => allowed && !video?.trashed_at && actions.favourite([id]);
  const compare = () => actions.compare(id, after || before);
  useCommands([
    { id: "clip.close", title: "Back to the gallery", group: "Clip", icon: X, key: "escape", run: onClose },
    {
      id: "clip.previous",
      title: "The clip before",
      group: "Clip",
      icon: ChevronLeft,
      key: "arrowleft",
      enabled: before !== "",
      run: () => onGo(before),
    },
    {
      id: "clip.next",
      title: "The clip after",
      group: "Clip",
      icon: ChevronRight,
      key: "arrowright",
      enabled: after !== "",
      run: () => onGo(after),
    },
    {
      id: "clip.favourite",
      title: "Favourite or not",
      group: "Clip",
      icon: Heart,
      key: "f",
      enabled: allowed,
      run: favourite,
    },
    {
      id: "clip.compare",
      title: "Compare with the next",
      group: "Clip",
      icon: Columns2,
      key: "c",
      enabled: after + before !== "",
      run: compare,
    },
    {
      id: "clip.trash",
      title: "Move to the trash",
      group: "Clip",
      icon: Trash2,
      key: "delete",
      enabled: allowed,
      run: trash,
    },
    {
      id: "clip.details",
      title: "Show or hide the details",
      group: "Clip",
      icon: Info,
      key: "i",
      run: () => useDetailsShown.setState({ shown: !shown }),
    },
  ]);
  const keys = {
    close: useShown("clip.close"),
    favourite: useShown("clip.favourite"),
    compare: useShown("clip.compare"),
    trash: useShown("clip.trash"),
    details: useShown("clip.details"),
  };

  return (
    <section
      ref={frame}
      tabIndex={-1}
      aria-label="Clip"
      data-testid="viewer"
      data-clip={id}
      className="absolute inset-0 z-25 flex flex-col bg-ground outline-none"
    >
      <header className="flex min-h-14 items-center gap-1 py-2 pr-44 pl-2 md:pl-3">
        <IconButton icon={X} label="Back to the gallery" shortcut={keys.close} onClick={onClose} />
        <p className="mr-auto ml-1 hidden truncate text-soft tabular-nums sm:block">
          {index >= 0 && ids ? `${(index + 1).toLocaleString()} of ${ids.length.toLocaleString()}` : ""}
        </p>
        {video?.trashed_at ? (
          <IconButton
            icon={RotateCcw}
            label="Restore"
            disabled={!allowed}
            onClick={() => actions.restore.mutate([id])}
          />
        ) : (
          <>
            <IconButton
              icon={Heart}
              label={video?.favourite ? "Take off the favourites" : "Add to the favourites"}
              shortcut={keys.favourite}
              pressed={video?.favourite ?? false}
              disabled={!allowed || !video}
              data-testid="viewer-favourite"
              onClick={favourite}
            />
            <IconButton
              icon={Columns2}
              label="Compare with the next"
              shortcut={keys.compare}
              disabled={after + before === ""}
              onClick={compare}
            />
          </>
        )}
        <IconButton
          icon={Trash2}
          label={video?.trashed_at ? "Delete for good" : "Move to the trash"}
          shortcut={keys.trash}
          disabled={!allowed || !video}
          onClick={trash}
        />
        <IconButton
          icon={Info}
          label="Details"
          shortcut={keys.details}
          pressed={shown}
          onClick={() => useDetailsShown.setState({ shown: !shown })}
        />
      </header>
      <div className="flex min-h-0 flex-1 flex-col overflow-y-auto lg:flex-row lg:overflow-hidden">
        <div
          className={classes(
            "relative flex min-w-0 flex-col lg:h-auto lg:flex-1",
            shown ? "h-[62%] min-h-72 shrink-0 lg:shrink" : "min-h-0 flex-1",
          )}
        >
          {video === null ? (
            <Empty icon={ImageOff} title="This clip is gone">
              It was deleted for good, or the address is of another server.
            </Empty>
          ) : video ? (
            <Player key={id} video={video} player={player} />
          ) : (
            <Skeleton className="m-3 flex-1" />
          )}
          {before && <Beside side="left" onClick={() => onGo(before)} />}
          {after && <Beside side="right" onClick={() => onGo(after)} />}
        </div>
        {shown && video && <DetailsPanel video={video} player={player} actions={actions} allowed={allowed} />}
      </div>
    </section>
  );
}

function Beside({ side, onClick }: { side: "left" | "right"; onClick: () => void }) {
  const left = side === "left";
  return (
    <div className={classes("absolute top-[40%]", left ? "left-2" : "right-2")}>
      <IconButton
        icon={left ? ChevronLeft : ChevronRight}
        label={left ? "The clip before" : "The clip after"}
        shortcut={left ? "←" : "→"}
        className="border border-edge bg-panel/85 shadow"
        onClick={onClick}
      />
    </div>
  );
}
