/**
 * The gallery's list: draws the rows in sight and no others, whatever the length of the list, and turns clicks and keys
 * into what they mean. Rows are reused while they scroll, so that no element is made for a clip that flies by.
 */

import {
  type MouseEvent,
  type PointerEvent,
  startTransition,
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "react";
import { usePreferences } from "@/app/preferences";
import type { Task } from "@/live/reducer";
import { classes } from "@/ui/classes";
import { type Entry, PointerMenu } from "@/ui/menu";
import { choose, focusOn, toggle, useSelection } from "../selection";
import { details } from "./details";
import type { IdList } from "./id-list";
import { furthest, layoutOf, type Move, moved, rowsInSight, ScrollSpace, topToShow } from "./layout";
import { useMoves } from "./moves";
import { RunningTile } from "./running-tile";
import { Scrubber } from "./scrubber";
import { CAPTION, FlyingTile, Tile } from "./tile";
import type { Timeline } from "./timeline";

type GridProps = {
  /** undefined = they have not come yet. */
  ids: IdList | undefined;
  running: Task[];
  /** null = the list is not in order of time. */
  timeline: Timeline | null;
  /** Another text = another list, which begins at its top. */
  name: string;
  /** Something covers the list: it takes no keys and plays nothing. */
  covered: boolean;
  onOpen: (id: string) => void;
  onTask: () => void;
  onFavourite: (id: string) => void;
  /** Entries of the menu at a clip; at no clip for an empty id. */
  entriesOf: (id: string) => Entry[];
};

/** After so many milliseconds without movement the list is at rest. */
const REST = 70;
/** Tiles that stand for clips that are not known yet. */
const SKELETONS = 24;
const GAP = 12;

const still = window.matchMedia("(prefers-reduced-motion: reduce)");

export function Grid({ ids, running, timeline, name, covered, onOpen, onTask, onFavourite, entriesOf }: GridProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const tile = usePreferences((now) => now.tile);
  const [{ width, viewport }, setRoom] = useState({ width: 0, viewport: 0 });
  const [, draw] = useReducer((count: number) => count + 1, 0);
  const { chosen, focus } = useSelection();
  const [live, setLive] = useState("");
  const [menuAt, setMenuAt] = useState("");
  const pressedAt = useRef("");
  const fast = useRef(false);
  const jumped = useRef(0);
  const rest = useRef<ReturnType<typeof setTimeout>>(undefined);

  const before = running.length;
  const count = ids ? before + ids.length : SKELETONS;
  const layout = useMemo(
    () => layoutOf({ count, width, viewport, tile, gap: GAP, caption: CAPTION, ratio: window.devicePixelRatio }),
    [count, width, viewport, tile],
  );
  const [space] = useState(() => new ScrollSpace(layout));
  const idAt = useCallback(
    (index: number) => running[index]?.id ?? ids?.at(index - before) ?? "",
    [ids, running, before],
  );

  // The tile of the keyboard: where its clip is now; where it was, if it has gone.
  const lastIndex = useRef(0);
  const current = useMemo(() => {
    const task = running.findIndex((one) => one.id === focus);
    const index = task >= 0 ? task : focus && ids ? ids.indexOf(focus) + before : -1;
    const found = index >= before || task >= 0 ? index : Math.min(lastIndex.current, count - 1);
    lastIndex.current = Math.max(0, found);
    return lastIndex.current;
  }, [focus, ids, running, before, count]);

  useLayoutEffect(() => {
    const measure = () =>
      setRoom({ width: inner.current?.clientWidth ?? 0, viewport: scroller.current?.clientHeight ?? 0 });
    const observer = new ResizeObserver(measure);
    if (inner.current) observer.observe(inner.current);
    if (scroller.current) observer.observe(scroller.current);
    measure();
    return () => observer.disconnect();
  }, []);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a layout is applied once, when it is new
  useLayoutEffect(() => {
    if (!scroller.current) return;
    scroller.current.scrollTop = space.resized(layout);
    draw();
  }, [layout]);

  const goTo = useCallback(
    (top: number) => {
      if (!scroller.current) return;
      fast.current = Math.abs(top - space.top) > layout.viewport * 1.5;
      // A single jump asks at once, while its tiles are still to be made; of many in a row, the last one asks.
      const now = performance.now();
      if (fast.current && ids && now - jumped.current > 4 * REST) {
        const [from, to] = rowsInSight(layout, top);
        details.want("grid", ids.between(from * layout.columns - before, to * layout.columns - before - 1));
      }
      jumped.current = now;
      scroller.current.scrollTop = space.go(top);
      clearTimeout(rest.current);
      rest.current = setTimeout(() => {
        fast.current = false;
        startTransition(draw);
      }, REST);
      draw();
    },
    [before, ids, layout, space],
  );

  // biome-ignore lint/correctness/useExhaustiveDependencies: another list begins at its top
  useEffect(() => goTo(0), [name]);
  useEffect(() => () => clearTimeout(rest.current), []);

  function onScroll() {
    if (!scroller.current) return;
    const top = space.top;
    space.scrolled(scroller.current.scrollTop);
    if (space.top === top) return;
    if (Math.abs(space.top - top) > layout.viewport * 1.5) fast.current = true;
    clearTimeout(rest.current);
    rest.current = setTimeout(() => {
      fast.current = false;
      if (scroller.current) scroller.current.scrollTop = space.settled();
      // Many tiles are made at once: in portions, between which the page answers.
      startTransition(draw);
    }, REST);
    draw();
  }

  const [first, end] = width > 0 ? rowsInSight(layout, space.top) : [0, 0];
  const light = fast.current;

  useEffect(() => {
    if (light || !ids) return;
    details.want("grid", ids.between(first * layout.columns - before, end * layout.columns - before - 1));
  }, [ids, first, end, light, layout.columns, before]);
  useEffect(() => () => details.want("grid", []), []);

  // A tile that is reused for another clip must not keep the focus of the one before.
  const takeFocus = useRef(false);
  useEffect(() => {
    const active = document.activeElement;
    const inside = inner.current?.contains(active) && active?.getAttribute("role") === "gridcell";
    if (!takeFocus.current && (!inside || active?.getAttribute("data-index") === String(current))) return;
    const cell = inner.current?.querySelector<HTMLElement>(`[data-index="${current}"]`);
    if (cell && cell !== active) cell.focus({ preventScroll: true });
    else if (!cell) scroller.current?.focus({ preventScroll: true });
    if (cell) takeFocus.current = false;
  });

  // Whatever covered the list may have gone to another clip.
  const wasCovered = useRef(covered);
  useEffect(() => {
    if (wasCovered.current && !covered) {
      takeFocus.current = true;
      const top = topToShow(layout, lastIndex.current, space.top);
      if (top !== space.top) goTo(top);
      else draw();
    }
    wasCovered.current = covered;
  }, [covered, goTo, layout, space]);

  const move = useCallback(
    (where: Move, extend: boolean) => {
      if (count === 0) return;
      // The first key shows where the keyboard is; the next ones move it.
      const next = useSelection.getState().focus ? moved(layout, current, where) : current;
      if (extend && ids) {
        const { anchor } = useSelection.getState();
        const from = anchor ? ids.indexOf(anchor) : current - before;
        if (!anchor) useSelection.setState({ anchor: idAt(current) });
        choose(ids.between(from < 0 ? current - before : from, next - before));
      } else useSelection.setState({ anchor: "" });
      focusOn(idAt(next));
      takeFocus.current = true;
      const top = topToShow(layout, next, space.top);
      if (top !== space.top) goTo(top);
    },
    [before, count, current, goTo, idAt, ids, layout, space],
  );
  useMoves(!covered && ids !== undefined, inner, move);

  function cellOf(event: { target: EventTarget | null }): HTMLElement | null {
    return event.target instanceof Element ? event.target.closest<HTMLElement>("[role=gridcell]") : null;
  }

  function onClick(event: MouseEvent) {
    const cell = cellOf(event);
    const { clip, index, task } = cell?.dataset ?? {};
    if (task) return onTask();
    if (!clip || !ids) return;
    const act =
      event.target instanceof Element ? event.target.closest<HTMLElement>("[data-act]")?.dataset.act : undefined;
    if (act === "favourite") return onFavourite(clip);
    const touched = (event.nativeEvent as globalThis.PointerEvent).pointerType === "touch";
    if (event.shiftKey) {
      const { anchor } = useSelection.getState();
      const from = anchor ? ids.indexOf(anchor) : current - before;
      choose(ids.between(Math.max(0, from), Number(index) - before), clip);
    } else if (act === "select" || event.ctrlKey || event.metaKey || (touched && chosen.size > 0)) toggle(clip);
    else {
      focusOn(clip);
      onOpen(clip);
    }
  }

  function onPointerOver(event: PointerEvent) {
    if (event.pointerType !== "mouse" || still.matches) return;
    setLive(cellOf(event)?.dataset.clip ?? "");
  }

  const playing = covered ? "" : live;
  const slots = Math.ceil(layout.viewport / layout.pitch) + 3;
  const rows = Array.from({ length: Math.max(0, end - first) }, (_, place) => first + place);
  const scale = timeline && ids && layout.rows * layout.pitch > layout.viewport * 1.5 ? timeline : null;
  const offset = space.bar - space.top;
  return (
    <div className="relative h-full min-h-0">
      <PointerMenu entries={entriesOf(menuAt)}>
        {/* biome-ignore lint/a11y/useKeyWithClickEvents: keys are commands of the page, for all tiles at once */}
        {/* biome-ignore lint/a11y/noStaticElementInteractions: the grid inside has the role */}
        <div
          ref={scroller}
          tabIndex={-1}
          data-testid="gallery-scroller"
          className={classes(
            "h-full overflow-y-auto overflow-x-hidden px-3 outline-none md:px-4",
            scale && "[scrollbar-width:none] pr-7! md:pr-18!",
          )}
          onScroll={onScroll}
          onClick={onClick}
          onPointerOver={onPointerOver}
          onPointerLeave={() => setLive("")}
          onPointerDown={(event) => {
            pressedAt.current = cellOf(event)?.dataset.clip ?? "";
            if (event.pointerType === "touch") setMenuAt(pressedAt.current);
          }}
          onContextMenu={(event) => setMenuAt(cellOf(event)?.dataset.clip ?? "")}
          onFocus={(event) => {
            const { clip, task } = cellOf(event)?.dataset ?? {};
            if (!clip && !task) return;
            focusOn(clip ?? task ?? "");
            if (clip && !still.matches && event.target.matches(":focus-visible")) setLive(clip);
          }}
          onBlur={() => setLive("")}
        >
          {/* biome-ignore lint/a11y/useSemanticElements: a table cannot place its rows by arithmetic */}
          <div
            ref={inner}
            role="grid"
            aria-label="Clips"
            aria-busy={!ids}
            aria-multiselectable
            aria-rowcount={layout.rows}
            aria-colcount={layout.columns}
            className="relative overflow-clip"
            style={{ height: layout.physical }}
          >
            {rows.map((row) => (
              // biome-ignore lint/a11y/useSemanticElements: as above
              // biome-ignore lint/a11y/useFocusableInteractive: its cells take the focus
              <div
                key={row % slots}
                role="row"
                aria-rowindex={row + 1}
                className="absolute inset-x-0 top-0"
                style={{ height: layout.height, transform: `translateY(${row * layout.pitch + offset}px)` }}
              >
                {Array.from({ length: Math.min(layout.columns, count - row * layout.columns) }, (_, column) => {
                  const index = row * layout.columns + column;
                  const task = running[index];
                  const place = {
                    index,
                    column,
                    width: layout.width,
                    height: layout.height,
                    current: index === current,
                  };
                  if (task) return <RunningTile key={`task-${task.id}`} task={task} {...place} />;
                  if (light) {
                    const key = `fly-${column}`;
                    return <FlyingTile key={key} column={column} width={layout.width} height={layout.height} />;
                  }
                  const id = idAt(index);
                  return (
                    <Tile
                      // biome-ignore lint/suspicious/noArrayIndexKey: tiles are reused by their place on purpose
                      key={column}
                      id={id}
                      playing={id !== "" && id === playing}
                      selected={chosen.has(id)}
                      selecting={chosen.size > 0}
                      {...place}
                    />
                  );
                })}
              </div>
            ))}
          </div>
        </div>
      </PointerMenu>
      {scale && (
        <Scrubber
          timeline={scale}
          share={furthest(layout) === 0 ? 0 : space.top / furthest(layout)}
          index={Math.max(0, Math.floor(space.top / layout.pitch) * layout.columns - before)}
          height={viewport}
          onShare={(share) => goTo(share * furthest(layout))}
          onIndex={(index) => goTo(Math.floor((index + before) / layout.columns) * layout.pitch)}
        />
      )}
    </div>
  );
}
