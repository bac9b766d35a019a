/** The load of the machine: now, over time, and the alerts since this page was loaded. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { BellOff } from "lucide-react";
import { lazy, Suspense, useEffect, useState } from "react";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { usePolling } from "@/live/connection";
import { classes } from "@/ui/classes";
import { Segments } from "@/ui/segments";
import { Badge, Panel, Skeleton } from "@/ui/status";
import { useAlerts } from "./alerts";
import {
  joined,
  type Measure,
  RANGES,
  type Range,
  type Sample,
  type Summary,
  sampleOf,
  severity,
  summary,
  withSample,
} from "./series";

const LoadChart = lazy(() => import("./load-chart"));

const LIVE_SECONDS = RANGES[0].seconds;
const POLL_MS = 3_000;
const COLOURS = { good: "text-ink", warn: "text-warn", danger: "text-danger" };
const TONES = { info: "plain", warning: "warn", critical: "danger" } as const;

type Figure = { measure: Measure; title: string; amount: string | null; warning: number; critical: number };

/** The figures of now, each second while live messages come. */
function useStats() {
  const refetchInterval = usePolling(POLL_MS);
  return useQuery({ queryKey: KEYS.stats, queryFn: () => data(api.GET("/api/v1/system/stats")), refetchInterval });
}

/** The samples of the last minutes: those of the store, then those that come while this is shown. */
function useLiveSamples(): readonly Sample[] {
  const [samples, setSamples] = useState<readonly Sample[]>([]);
  const cache = useQueryClient();
  useEffect(() => {
    function take() {
      const stats = cache.getQueryData<Schemas["SystemStats"]>(KEYS.stats);
      if (stats) setSamples((now) => withSample(now, sampleOf(stats), LIVE_SECONDS));
    }
    take();
    return cache.getQueryCache().subscribe((event) => {
      if (event.type === "updated" && event.query.queryKey[0] === KEYS.stats[0]) take();
    });
  }, [cache]);
  return samples;
}

function figuresOf(stats: Schemas["SystemStats"], limits: Schemas["Constraints"]): Figure[] {
  const share = (value: number) => Math.round(value * 100);
  const vram = { warning: share(limits.vram_warning_threshold), critical: share(limits.vram_critical_threshold) };
  const ram = { warning: share(limits.ram_warning_threshold), critical: share(limits.ram_critical_threshold) };
  const busy = { warning: 75, critical: share(limits.cpu_warning_threshold) };
  return [
    { measure: "cpu", title: "CPU", amount: null, ...busy },
    {
      measure: "ram",
      title: "RAM",
      amount: `${stats.ram_used_gb.toFixed(1)} of ${stats.ram_total_gb.toFixed(1)} GiB`,
      ...ram,
    },
    { measure: "gpu", title: "GPU", amount: null, warning: 75, critical: 90 },
    {
      measure: "vram",
      title: "VRAM",
      amount:
        stats.vram_used_mb != null && stats.vram_total_mb != null
          ? `${(stats.vram_used_mb / 1024).toFixed(1)} of ${(stats.vram_total_mb / 1024).toFixed(1)} GiB`
          : null,
      ...vram,
    },
  ];
}

export function LoadPart() {
  const [range, setRange] = useState<Range>("live");
  const seconds = RANGES.find((one) => one.value === range)?.seconds ?? LIVE_SECONDS;
  const stats = useStats();
  const limits = useQuery({
    queryKey: ["limits"],
    queryFn: () => data(api.GET("/api/v1/system/constraints")),
  });
  const history = useQuery({
    queryKey: [...KEYS.stats, "history", range],
    queryFn: () => data(api.GET("/api/v1/system/stats/history", { params: { query: { hours: seconds / 3600 } } })),
    refetchInterval: range === "live" ? false : 30_000,
  });
  const live = useLiveSamples();
  if (stats.error && !stats.data) return <ProblemNote error={stats.error} retry={() => void stats.refetch()} />;
  if (!stats.data || !limits.data || !history.data) {
    return (
      <div className="grid gap-3 md:grid-cols-2">
        {["cpu", "ram", "gpu", "vram"].map((name) => (
          <Skeleton key={name} className="h-64" />
        ))}
      </div>
    );
  }
  const now = sampleOf(stats.data);
  const stored = history.data.stats.map(sampleOf);
  const samples = joined(stored, range === "live" ? live : live.slice(-1));
  return (
    <div className="space-y-4">
      <div className="flex flex-wrap items-center gap-3">
        <Segments label="Range of the charts" value={range} choices={RANGES} onChange={setRange} />
        <p className="text-xs text-soft">
          As of <span data-testid="stats-time">{new Date(now.at * 1000).toLocaleTimeString()}</span>
        </p>
      </div>
      <div className="grid gap-3 md:grid-cols-2">
        {figuresOf(stats.data, limits.data).map((figure) => (
          <FigureCard
            key={figure.measure}
            figure={figure}
            value={now[figure.measure]}
            samples={samples}
            span={seconds}
          />
        ))}
      </div>
      <AlertList />
    </div>
  );
}

type CardProps = { figure: Figure; value: number | null; samples: readonly Sample[]; span: number };

function FigureCard({ figure, value, samples, span }: CardProps) {
  const { measure, title, amount, warning, critical } = figure;
  return (
    <section className="min-w-0 rounded-xl border border-edge bg-panel p-4" aria-label={title}>
      <header className="mb-2 flex items-baseline justify-between gap-2">
        <h3 className="font-semibold">{title}</h3>
        <p className="flex-1 text-right text-soft">{amount}</p>
        {value === null ? (
          <p className="text-soft">no card</p>
        ) : (
          <p
            data-testid={`${measure}-usage`}
            className={classes("w-20 text-right text-xl font-semibold", COLOURS[severity(value, warning, critical)])}
          >
            {/* A new element for a new number: its right edge stays, so nothing has moved. */}
            <span key={value.toFixed(0)}>{value.toFixed(0)} %</span>
          </p>
        )}
      </header>
      {value === null ? (
        <p className="flex h-[150px] items-center justify-center text-center text-soft">
          This machine has no card that can be read. Clips are made by the processor.
        </p>
      ) : (
        <Suspense fallback={<Skeleton className="h-[150px]" />}>
          <LoadChart
            title={title}
            measure={measure}
            samples={samples}
            span={span}
            warning={warning}
            critical={critical}
          />
        </Suspense>
      )}
      {value !== null && (
        <details className="mt-1 text-xs">
          <summary className="text-soft">
            As a table; the lines are at {warning} and {critical} %
          </summary>
          <SampleTable title={title} rows={summary(samples, measure)} span={span} />
        </details>
      )}
    </section>
  );
}

function SampleTable({ title, rows, span }: { title: string; rows: readonly Summary[]; span: number }) {
  const format =
    span > 86_400 ? ({ dateStyle: "short", timeStyle: "short" } as const) : ({ timeStyle: "medium" } as const);
  return (
    <table className="mt-1 w-full text-left">
      <caption className="sr-only">{title}, in percent</caption>
      <thead className="text-soft">
        <tr>
          <th scope="col">From</th>
          <th scope="col">Mean</th>
          <th scope="col">Highest</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.at}>
            <th scope="row" className="font-normal">
              {new Date(row.at * 1000).toLocaleString([], format)}
            </th>
            <td>{row.mean.toFixed(0)} %</td>
            <td>{row.most.toFixed(0)} %</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function AlertList() {
  const alerts = useAlerts((now) => now.alerts);
  return (
    <Panel title="Alerts since this page was loaded">
      {alerts.length === 0 ? (
        <p className="flex items-center gap-2 text-soft">
          <BellOff aria-hidden className="size-4" /> None. Memory above a limit, what the health monitor finds, mocks
          and failed downloads are told here.
        </p>
      ) : (
        <ol className="space-y-2" aria-live="polite">
          {alerts.map((alert) => (
            <li key={alert.number} className="flex gap-2" data-testid="alert">
              <Badge tone={TONES[alert.severity]}>{alert.severity}</Badge>
              <span className="min-w-0 flex-1 break-words">{alert.message}</span>
              <time className="text-xs text-soft" dateTime={new Date(alert.at).toISOString()}>
                {new Date(alert.at).toLocaleTimeString()}
              </time>
            </li>
          ))}
        </ol>
      )}
    </Panel>
  );
}
