/**
 * Where every tile of the gallery is, by arithmetic alone, and how a scroll bar reaches all of them. A browser ends a
 * page at some 16.7 million pixels; beyond that, the place in the list and the place of the scroll bar are two numbers.
 */

export type Layout = {
  count: number;
  columns: number;
  rows: number;
  /** Size of a tile, in pixels. */
  width: number;
  height: number;
  /** From the top of a row to the top of the next one. */
  pitch: number;
  gap: number;
  /** Height of the whole list, whatever the browser can hold. */
  total: number;
  /** Height that the browser is asked for. */
  physical: number;
  viewport: number;
};

export type Frame = {
  count: number;
  /** Room for tiles, in pixels, and how wide a tile should be at least. */
  width: number;
  viewport: number;
  tile: number;
  gap?: number;
  /** Height of the text below a picture. */
  caption?: number;
  /** Device pixels for each CSS pixel: the browser's limit is in device pixels. */
  ratio?: number;
};

/** Longest page that every browser lays out, in device pixels: Chrome stops at 16.78 million, Firefox at 17.9. */
export const LONGEST_PAGE = 15_000_000;

/** Pictures are shown in this shape, whatever the shape of the clip. */
const ASPECT = 16 / 10;

export function layoutOf({ count, width, viewport, tile, gap = 12, caption = 52, ratio = 1 }: Frame): Layout {
  const room = Math.max(1, width);
  // Two columns on a phone: one would be a list of posters, and nobody finds anything in it.
  const wanted = Math.min(tile, Math.max(120, (room - gap) / 2));
  const columns = Math.max(1, Math.floor((room + gap) / (wanted + gap)));
  const exact = Math.floor((room - (columns - 1) * gap) / columns);
  const height = Math.round(exact / ASPECT) + caption;
  const rows = Math.ceil(count / columns);
  const pitch = height + gap;
  const total = rows === 0 ? 0 : rows * pitch;
  const physical = Math.max(viewport, Math.min(total, Math.floor(LONGEST_PAGE / Math.max(1, ratio))));
  return { count, columns, rows, width: exact, height, pitch, gap, total, physical, viewport };
}

/** The farthest that the list can be scrolled. */
export function furthest({ total, viewport }: Layout): number {
  return Math.max(0, total - viewport);
}

/** First row in sight and the row after the last one, with some rows more on both sides. */
export function rowsInSight(layout: Layout, top: number, more = 1): [number, number] {
  const first = Math.floor(top / layout.pitch) - more;
  const end = Math.ceil((top + layout.viewport) / layout.pitch) + more;
  return [Math.max(0, first), Math.min(layout.rows, Math.max(0, end))];
}

/** The place of the list at which a row is in sight; the place now if it is already. */
export function topToShow(layout: Layout, index: number, top: number): number {
  const start = Math.floor(index / layout.columns) * layout.pitch;
  const end = start + layout.pitch;
  if (start < top) return start;
  return end > top + layout.viewport ? Math.min(furthest(layout), end - layout.viewport) : top;
}

export type Move = "left" | "right" | "up" | "down" | "pageup" | "pagedown" | "home" | "end";

/** The tile that a key moves to. */
export function moved(layout: Layout, index: number, move: Move): number {
  const { columns, count, rows } = layout;
  const page = Math.max(1, Math.floor(layout.viewport / layout.pitch)) * columns;
  const column = index % columns;
  const step = {
    left: -1,
    right: 1,
    up: -columns,
    down: columns,
    pageup: -page,
    pagedown: page,
    home: -count,
    end: count,
  }[move];
  const next = index + step;
  const last = count - 1;
  if (move === "up" || move === "pageup") return next < 0 ? Math.min(column, last) : next;
  // Below a last row that is not full, the last tile is the nearest.
  if ((move === "down" || move === "pagedown") && next > last) return Math.min(last, (rows - 1) * columns + column);
  return Math.max(0, Math.min(last, next));
}

/**
 * Two places that belong together: `top`, the pixel of the list at the upper edge, and `bar`, the browser's `scrollTop`.
 * Small movements move both by the same number of pixels, so that a wheel feels as everywhere; a pull at the scroll
 * bar goes to the same share of the list. At rest the bar is put where it belongs, which nobody sees.
 */
export class ScrollSpace {
  top = 0;
  bar = 0;
  private layout: Layout;

  constructor(layout: Layout) {
    this.layout = layout;
  }

  private get barRoom(): number {
    return Math.max(0, this.layout.physical - this.layout.viewport);
  }

  get compressed(): boolean {
    return this.layout.total > this.layout.physical;
  }

  /** Takes what the browser scrolled to. */
  scrolled(bar: number): void {
    const by = bar - this.bar;
    this.bar = bar;
    if (!this.compressed) {
      this.top = bar;
      return;
    }
    const far = Math.abs(by) > this.layout.viewport * 2 || bar <= 0 || bar >= this.barRoom;
    this.top = far ? this.shareOf(bar) : this.within(this.top + by);
  }

  /** Goes to a place of the list; returns the `scrollTop` that belongs to it. */
  go(top: number): number {
    this.top = this.within(top);
    return this.settled();
  }

  /** Where the bar belongs now. */
  settled(): number {
    const end = furthest(this.layout);
    this.bar = this.compressed ? Math.round((this.top / end) * this.barRoom) : this.top;
    // The ends belong to the ends alone: one pixel before, there is more to scroll to.
    if (this.compressed && this.top > 0 && this.top < end) this.bar = Math.max(1, Math.min(this.barRoom - 1, this.bar));
    return this.bar;
  }

  /** Keeps the tile at the upper edge where it is while the layout changes; returns the new `scrollTop`. */
  resized(layout: Layout): number {
    const index = (this.top / this.layout.pitch) * this.layout.columns;
    const same = layout.columns === this.layout.columns && layout.pitch === this.layout.pitch;
    this.layout = layout;
    return this.go(same ? this.top : (index / layout.columns) * layout.pitch);
  }

  private shareOf(bar: number): number {
    return this.barRoom === 0 ? 0 : this.within((bar / this.barRoom) * furthest(this.layout));
  }

  private within(top: number): number {
    return Math.max(0, Math.min(furthest(this.layout), top));
  }
}
