/** One clip in the gallery: its poster, what it is, and how it is marked. Clicks and keys are the grid's. */

import { Check, Heart, ImageOff, Upload } from "lucide-react";
import { memo, useEffect, useState } from "react";
import { duration, moment } from "@/app/format";
import { classes } from "@/ui/classes";
import { fileOf, posterOf } from "../media";
import { useVideo, type Video } from "./details";
import { Placeholder } from "./placeholder";

export type TileProps = {
  id: string;
  index: number;
  width: number;
  height: number;
  column: number;
  /** Its clip plays. */
  playing: boolean;
  selected: boolean;
  /** The keyboard is here; one tile of the grid is in the order of Tab. */
  current: boolean;
  /** Marks are shown on every tile, as some are selected. */
  selecting: boolean;
};

/** Height of the text below a picture, in pixels. */
export const CAPTION = 52;

const HATCH = "bg-[repeating-linear-gradient(135deg,transparent_0_10px,rgb(0_0_0/0.32)_10px_20px)]";

export const Tile = memo(function Tile(props: TileProps) {
  const { id, index, width, height, column, playing, selected, current, selecting } = props;
  const video = useVideo(id);
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot place its cells by arithmetic
    <div
      role="gridcell"
      tabIndex={current ? 0 : -1}
      aria-colindex={column + 1}
      aria-selected={selected}
      data-testid="video-card"
      data-index={index}
      data-clip={id}
      className="group absolute top-0 cursor-pointer rounded-lg -outline-offset-2!"
      style={{ width, height, left: 0, transform: `translateX(${column * (width + 12)}px)` }}
    >
      <div
        className={classes(
          "relative overflow-hidden rounded-lg bg-raised",
          selected && "outline-4 -outline-offset-4 outline-accent",
        )}
        style={{ height: height - CAPTION }}
      >
        <Placeholder hash={video?.placeholder} className="scale-110 blur-[6px]" />
        {video && <Poster key={id} video={video} />}
        {video && playing && <HoverVideo key={`${id}-video`} video={video} />}
        {video?.mock && <div aria-hidden className={classes("absolute inset-0", HATCH)} />}
        {video === null && <ImageOff aria-hidden className="absolute inset-0 m-auto size-6 text-soft" />}
        {video && <Marks video={video} />}
        {/* Both buttons are for the pointer; the same is in the menu of the tile and on keys, for everybody else. */}
        <button
          type="button"
          tabIndex={-1}
          aria-hidden
          data-act="select"
          title={selected ? "Let go" : "Select"}
          className={classes(
            "absolute top-1.5 left-1.5 size-7 items-center justify-center rounded-full border-2 border-white shadow",
            selected ? "flex bg-accent text-on-accent" : "bg-black/50 text-white",
            !selected && (selecting ? "flex" : "hidden group-hover:flex"),
          )}
        >
          <Check aria-hidden className="size-4" />
        </button>
        {video && (
          <button
            type="button"
            tabIndex={-1}
            aria-hidden
            data-act="favourite"
            title={video.favourite ? "Take off the favourites" : "Add to the favourites"}
            className={classes(
              "absolute top-1.5 right-1.5 size-7 items-center justify-center rounded-full bg-black/55 text-white",
              video.favourite ? "flex" : "hidden group-hover:flex",
            )}
          >
            <Heart aria-hidden className={classes("size-4", video.favourite && "fill-current text-[#ff8a9a]")} />
          </button>
        )}
      </div>
      <p className="mt-1 min-h-5 truncate leading-snug">
        {video ? video.prompt || "Without a prompt" : <NoDetails gone={video === null} />}
      </p>
      <p className="truncate text-xs text-soft">{video ? below(video) : "\u00a0"}</p>
      {video?.favourite && <span className="sr-only">Favourite</span>}
    </div>
  );
});

/** A place for a clip while the list flies by: nothing is known of it, and nothing is asked for. */
export const FlyingTile = memo(function FlyingTile({
  width,
  height,
  column,
}: Pick<TileProps, "width" | "height" | "column">) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot place its cells by arithmetic
    // biome-ignore lint/a11y/useFocusableInteractive: it is gone before a key could reach it
    <div
      role="gridcell"
      aria-colindex={column + 1}
      className="absolute top-0"
      style={{ width, height, left: 0, transform: `translateX(${column * (width + 12)}px)` }}
    >
      <div className="rounded-lg bg-raised" style={{ height: height - CAPTION }} />
    </div>
  );
});

function Marks({ video }: { video: Video }) {
  return (
    <div className="pointer-events-none absolute inset-x-1.5 bottom-1.5 flex items-end gap-1 text-[0.6875rem] leading-5 text-white">
      {video.mock && (
        <strong data-testid="mock-badge" className="rounded bg-[#8a5300] px-1.5">
          MOCK
        </strong>
      )}
      {video.instead_of && <span className="min-w-0 truncate rounded bg-black/70 px-1.5">not {video.instead_of}</span>}
      {video.imported && (
        <span className="rounded bg-black/70 px-1">
          <Upload aria-label="Uploaded" className="my-1 size-3" />
        </span>
      )}
      <span className="ml-auto shrink-0 rounded bg-black/70 px-1.5 tabular-nums">
        {duration(video.duration_seconds)}
      </span>
    </div>
  );
}

function Poster({ video }: { video: Video }) {
  const [state, setState] = useState<"coming" | "here" | "none">("coming");
  if (state === "none") return null;
  return (
    <img
      src={posterOf(video)}
      alt=""
      decoding="async"
      draggable={false}
      onLoad={() => setState("here")}
      onError={() => setState("none")}
      className={classes(
        "absolute inset-0 size-full object-contain transition-opacity",
        state === "coming" && "opacity-0",
      )}
    />
  );
}

/** The one player of the page. It begins a moment later, so that a pointer on its way starts nothing. */
function HoverVideo({ video }: { video: Video }) {
  const [begun, setBegun] = useState(false);
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setBegun(true), 150);
    return () => clearTimeout(timer);
  }, []);
  if (!begun) return null;
  return (
    <video
      src={fileOf(video)}
      data-testid="hover-video"
      muted
      loop
      autoPlay
      playsInline
      disablePictureInPicture
      onPlaying={() => setShown(true)}
      className={classes("pointer-events-none absolute inset-0 size-full object-contain", !shown && "opacity-0")}
    />
  );
}

function below(video: Video): string {
  if (video.purge_at) return `Deleted for good ${moment(video.purge_at)}`;
  return [video.model, video.resolution, video.created_at && moment(video.created_at)].filter(Boolean).join(" · ");
}

/** Keeps the room of a prompt, and says to a screen reader why there is none. */
function NoDetails({ gone }: { gone: boolean }) {
  return gone ? <>This clip is gone</> : <span className="sr-only">Details follow</span>;
}
