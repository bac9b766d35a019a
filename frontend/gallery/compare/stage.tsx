/** Two clips as they are looked at: beside each other, one over the other up to a line, as their difference, or in turns. */

import { type PointerEvent, type RefObject, useRef, useState } from "react";
import { classes } from "@/ui/classes";
import type { Video } from "../grid/details";
import { fileOf, posterOf } from "../media";

export type View = "side" | "slider" | "difference" | "turns";

type StageProps = {
  a: Video;
  b: Video;
  view: View;
  /** Which one is seen in turns. */
  turn: "a" | "b";
  /** How much a difference is brightened. */
  gain: number;
  first: RefObject<HTMLVideoElement | null>;
  second: RefObject<HTMLVideoElement | null>;
};

export function Stage({ a, b, view, turn, gain, first, second }: StageProps) {
  const [line, setLine] = useState(50);
  const box = useRef<HTMLDivElement>(null);
  const side = view === "side";

  function pull(event: PointerEvent) {
    if (view !== "slider" || (event.type === "pointermove" && event.buttons === 0)) return;
    const { left, width } = box.current?.getBoundingClientRect() ?? { left: 0, width: 1 };
    setLine(Math.max(0, Math.min(100, ((event.clientX - left) / width) * 100)));
  }

  // The elements stay where they are in the document, so that a change of the view interrupts nothing.
  const layer = side ? "relative min-h-0 min-w-0 flex-1" : "absolute inset-0";
  return (
    <div className="flex min-h-0 flex-1 flex-col gap-1">
      <div
        ref={box}
        data-testid="compare-stage"
        data-view={view}
        className={classes(
          "relative flex min-h-56 flex-1 gap-2 overflow-hidden rounded-lg max-sm:flex-col",
          view === "difference" && "isolate bg-black",
          view === "slider" && "cursor-ew-resize touch-none",
        )}
        style={view === "difference" ? { filter: `brightness(${gain})` } : undefined}
        onPointerDown={pull}
        onPointerMove={pull}
      >
        <div className={classes(layer, view === "turns" && turn === "b" && "invisible")}>
          <Clip video={a} player={first} testId="compare-a" />
          {(side || view === "turns") && <Name text="A" className="left-2" />}
        </div>
        <div
          className={classes(
            layer,
            view === "difference" && "mix-blend-difference",
            view === "turns" && turn === "a" && "invisible",
          )}
          style={view === "slider" ? { clipPath: `inset(0 0 0 ${line}%)` } : undefined}
        >
          <Clip video={b} player={second} testId="compare-b" />
          {(side || view === "turns") && <Name text="B" className="left-2" />}
        </div>
        {view === "slider" && (
          <>
            <div
              aria-hidden
              className="pointer-events-none absolute inset-y-0 w-0.5 -translate-x-1/2 bg-accent"
              style={{ left: `${line}%` }}
            />
            <Name text="A" className="left-2" />
            <Name text="B" className="right-2" />
          </>
        )}
      </div>
      {view === "slider" && (
        <input
          type="range"
          aria-label="Line between A and B"
          aria-valuetext={`${Math.round(line)} % of A`}
          min={0}
          max={100}
          value={line}
          onChange={(event) => setLine(event.target.valueAsNumber)}
          className="h-6 w-full accent-accent"
        />
      )}
    </div>
  );
}

function Clip({ video, player, testId }: { video: Video; player: RefObject<HTMLVideoElement | null>; testId: string }) {
  return (
    <video
      ref={player}
      src={fileOf(video)}
      poster={posterOf(video)}
      data-testid={testId}
      aria-label={video.prompt || "Clip"}
      muted
      playsInline
      preload="auto"
      className="absolute inset-0 size-full object-contain"
    />
  );
}

function Name({ text, className }: { text: string; className: string }) {
  return (
    <strong
      className={classes("pointer-events-none absolute top-2 rounded bg-black/75 px-2 py-0.5 text-white", className)}
    >
      {text}
    </strong>
  );
}
