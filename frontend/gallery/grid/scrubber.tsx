/** The scale of dates at the edge of the gallery: shows where the list is, and goes to any day at once. */

import { type KeyboardEvent, type PointerEvent, useMemo, useRef, useState } from "react";
import { classes } from "@/ui/classes";
import { dayAt, dayInWords, type Timeline, ticksOf } from "./timeline";

type ScrubberProps = {
  timeline: Timeline;
  /** Which share of the list is above the window, from 0 to 1. */
  share: number;
  /** The place of the first clip in sight. */
  index: number;
  height: number;
  onShare: (share: number) => void;
  onIndex: (index: number) => void;
};

/** Least room of a label, in pixels. */
const LABEL = 34;
/** Kept free above and below, so that the first and the last label fit. */
const MARGIN = 12;

export function Scrubber({ timeline, share, index, height, onShare, onIndex }: ScrubberProps) {
  const rail = useRef<HTMLDivElement>(null);
  const [pointed, setPointed] = useState<number | null>(null);
  const [held, setHeld] = useState(false);
  const length = Math.max(1, height - 2 * MARGIN);
  const ticks = useMemo(() => ticksOf(timeline, Math.floor(length / LABEL)), [timeline, length]);
  const now = dayAt(timeline, Math.min(index, timeline.count - 1));
  const today = timeline.days[now]?.day;
  if (!today) return null;

  function shareAt(event: PointerEvent): number {
    const top = rail.current?.getBoundingClientRect().top ?? 0;
    return Math.max(0, Math.min(1, (event.clientY - top - MARGIN) / length));
  }

  function onKeyDown(event: KeyboardEvent) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 30, PageUp: -30, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(timeline.days.length - 1, now + by));
    onIndex(timeline.starts[next] as number);
  }

  const shown = pointed ?? share;
  const day = timeline.days[dayAt(timeline, Math.round(shown * (timeline.count - 1)))]?.day ?? today;
  return (
    <div
      ref={rail}
      role="slider"
      tabIndex={0}
      aria-label="Date"
      aria-orientation="vertical"
      aria-valuemin={0}
      aria-valuemax={timeline.days.length - 1}
      aria-valuenow={now}
      aria-valuetext={dayInWords(today)}
      data-testid="scrubber"
      className="group absolute inset-y-0 right-0 z-20 w-6 cursor-ns-resize touch-none rounded-md md:w-16"
      onKeyDown={onKeyDown}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        setHeld(true);
        onShare(shareAt(event));
      }}
      onPointerMove={(event) => {
        const at = shareAt(event);
        setPointed(at);
        if (held) onShare(at);
      }}
      onPointerUp={() => setHeld(false)}
      onPointerCancel={() => setHeld(false)}
      onPointerLeave={() => setPointed(null)}
    >
      <div aria-hidden>
        {ticks.map((tick) => (
          <span
            key={tick.day}
            className="absolute right-1 hidden -translate-y-1/2 text-[0.6875rem] whitespace-nowrap text-soft select-none md:block"
            style={{ top: MARGIN + (tick.index / timeline.count) * length }}
          >
            {tick.label}
          </span>
        ))}
        <span
          className="absolute right-0 h-0.5 w-4 -translate-y-1/2 rounded-full bg-accent md:right-auto md:left-0 md:h-1 md:w-3"
          style={{ top: MARGIN + share * length }}
        />
        <span
          data-testid="scrubber-date"
          className={classes(
            "pointer-events-none absolute right-full mr-1 -translate-y-1/2 rounded-md bg-ink px-2 py-1 text-xs whitespace-nowrap text-panel shadow",
            pointed === null && !held && "opacity-0 group-focus-visible:opacity-100",
          )}
          style={{ top: MARGIN + shown * length }}
        >
          {dayInWords(pointed === null ? today : day)}
        </span>
      </div>
    </div>
  );
}
