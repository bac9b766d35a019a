/** One measure over time: a line with the two limits, drawn by uPlot on a canvas. The table beside it says the same. */

import "uplot/dist/uPlot.min.css";
import { useEffect, useRef, useSyncExternalStore } from "react";
import uPlot from "uplot";
import { columns, type Measure, type Sample } from "./series";

const HEIGHT = 150;

type ChartProps = {
  title: string;
  measure: Measure;
  samples: readonly Sample[];
  /** Span of the horizontal axis, in seconds. */
  span: number;
  warning: number;
  critical: number;
};

function watchTheme(changed: () => void) {
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => observer.disconnect();
}

/** The theme in force, so that a canvas is drawn anew in its colours. */
function useThemeName(): string {
  return useSyncExternalStore(watchTheme, () => document.documentElement.dataset.theme ?? "light");
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function limitLines(warning: number, critical: number): uPlot.Plugin {
  function draw(chart: uPlot) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const [value, name] of [
      [warning, "warn"],
      [critical, "danger"],
    ] as const) {
      const y = Math.round(chart.valToPos(value, "y", true));
      ctx.strokeStyle = colour(name);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }
  return { hooks: { draw } };
}

export default function LoadChart({ title, measure, samples, span, warning, critical }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const newest = useRef(samples);
  newest.current = samples;
  const theme = useThemeName();

  // biome-ignore lint/correctness/useExhaustiveDependencies: a canvas has to be drawn anew in the colours of the theme
  useEffect(() => {
    const box = place.current;
    if (!box) return;
    const axis = { stroke: colour("soft"), grid: { stroke: colour("edge"), width: 1 }, ticks: { show: false } };
    const accent = colour("accent");
    const made = new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, y: false },
        scales: { y: { range: [0, 100] }, x: { range: (_, __, end) => [end - span, end] } },
        axes: [
          { ...axis, space: 70 },
          { ...axis, size: 40, values: (_, ticks) => ticks.map((tick) => `${tick} %`) },
        ],
        series: [{}, { label: title, stroke: accent, fill: `${accent}22`, width: 1.5, points: { show: false } }],
        plugins: [limitLines(warning, critical)],
      },
      columns(newest.current, measure) as uPlot.AlignedData,
      box,
    );
    chart.current = made;
    const resize = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    resize.observe(box);
    return () => {
      resize.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [title, measure, span, warning, critical, theme]);

  useEffect(() => chart.current?.setData(columns(samples, measure) as uPlot.AlignedData), [samples, measure]);

  return <div ref={place} aria-hidden className="min-w-0 overflow-hidden" style={{ height: HEIGHT }} />;
}
