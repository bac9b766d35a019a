/** What ended tasks took: success, times by model, size and phase, tasks by day; and what would help most. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { ChartNoAxesColumn } from "lucide-react";
import { useState } from "react";
import { duration } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Segments } from "@/ui/segments";
import { Badge, Empty, Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { type Bar, byDay, byPhase, bySize } from "./analytics";
import { useAllowed } from "./session";

const SPANS = [
  { value: "24", label: "24 hours" },
  { value: "168", label: "7 days" },
] as const;

/** Bars with their names and values: a table, of which the bars are the drawing. */
function Bars({ title, bars, unit }: { title: string; bars: readonly Bar[]; unit: (value: number) => string }) {
  const most = Math.max(...bars.map((bar) => bar.value), 0) || 1;
  return (
    <Panel title={title}>
      <table className="w-full">
        <caption className="sr-only">{title}</caption>
        <tbody>
          {bars.map((bar) => (
            <tr key={bar.label} className="align-top">
              <th scope="row" className="w-2/5 py-1 pr-3 text-left font-normal break-words">
                {bar.label}
              </th>
              <td className="py-1">
                <svg aria-hidden className="h-4 w-full" preserveAspectRatio="none" viewBox="0 0 100 10">
                  <rect className="fill-accent" width={Math.max(0.5, (100 * bar.value) / most)} height="10" rx="0.6" />
                </svg>
              </td>
              <td className="w-28 py-1 pl-3 text-right whitespace-nowrap">
                {unit(bar.value)}
                {bar.note && <span className="block text-xs text-soft">{bar.note}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}

const percent = (share: number | null | undefined) => (share == null ? "—" : `${Math.round(share * 100)} %`);
const time = (seconds: number | null | undefined) =>
  seconds == null ? "—" : seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);

export function AnalyticsPart() {
  const [span, setSpan] = useState<(typeof SPANS)[number]["value"]>("168");
  const hours = Number(span);
  const report = useQuery({
    queryKey: ["report", span],
    queryFn: () => data(api.GET("/api/v1/performance/report", { params: { query: { hours_back: hours } } })),
  });
  const tasks = useQuery({
    queryKey: ["ended", span],
    queryFn: () => data(api.GET("/api/v1/performance/metrics", { params: { query: { time_window_hours: hours } } })),
  });
  const advice = useAdvice();
  const presets = usePlanPresets();
  if (report.error) return <ProblemNote error={report.error} retry={() => void report.refetch()} />;
  if (tasks.error) return <ProblemNote error={tasks.error} retry={() => void tasks.refetch()} />;
  const counselled = (advice.data || advice.error) && (presets.data || presets.error);
  if (!report.data || !tasks.data || !counselled) return <Skeleton className="h-96" />;
  const { figures, models } = report.data.data;
  const rows = tasks.data.data.metrics;
  return (
    <div className="space-y-4">
      <div className="max-w-xs">
        <Segments label="Period" value={span} choices={SPANS} onChange={setSpan} />
      </div>
      <Advice />
      {figures.total_tasks === 0 ? (
        <Empty icon={ChartNoAxesColumn} title="No task has ended in this time">
          Make a clip: what it took, phase by phase, is shown here.
        </Empty>
      ) : (
        <>
          <dl className="grid grid-cols-2 gap-3 md:grid-cols-4" data-testid="analytics">
            {[
              ["Tasks ended", String(figures.total_tasks)],
              ["Became a clip", percent(figures.success_rate)],
              ["A clip takes", time(figures.average_generation_time)],
              ["Of it denoising", percent(figures.resource_efficiency)],
            ].map(([name, value]) => (
              <div key={name} className="rounded-xl border border-edge bg-panel p-4">
                <dt className="text-soft">{name}</dt>
                <dd className="text-xl font-semibold">{value}</dd>
              </div>
            ))}
          </dl>
          <div className="grid items-start gap-3 xl:grid-cols-2">
            <Bars
              title="Seconds a clip, by model"
              unit={time}
              bars={Object.entries(models).flatMap(([label, one]) =>
                one.average_generation_time == null
                  ? []
                  : [
                      {
                        label,
                        value: one.average_generation_time,
                        note: `${percent(one.success_rate)} of ${one.tasks}`,
                      },
                    ],
              )}
            />
            <Bars title="Where the time goes" unit={time} bars={byPhase(figures.bottleneck_analysis.phase_seconds)} />
            <Bars title="Seconds a clip, by size" unit={time} bars={bySize(rows)} />
            <Bars title="Tasks by day" unit={(count) => String(count)} bars={byDay(rows)} />
          </div>
          {figures.left_out > 0 && (
            <p className="text-soft">{figures.left_out.toLocaleString()} older tasks of this period are not counted.</p>
          )}
        </>
      )}
    </div>
  );
}

const useAdvice = () =>
  useQuery({ queryKey: ["advice"], queryFn: () => data(api.GET("/api/v1/optimization/recommendations")) });

const usePlanPresets = () =>
  useQuery({ queryKey: ["plan-presets"], queryFn: () => data(api.GET("/api/v1/optimization/presets")) });

/** What the planner and the finished tasks suggest, and the presets; each can be applied, and taken back. */
function Advice() {
  const cache = useQueryClient();
  const allowed = useAllowed("admin");
  const advice = useAdvice();
  const presets = usePlanPresets();
  const again = () => {
    for (const key of [["advice"], ["plan-presets"], KEYS.settings, KEYS.fits]) {
      void cache.invalidateQueries({ queryKey: key });
    }
  };
  const undo = useMutation({
    mutationFn: () => data(api.POST("/api/v1/config/undo", { body: {} })),
    onSuccess: ({ message }) => say({ title: message }),
    onSettled: again,
  });
  const apply = useMutation({
    mutationFn: async (what: { preset: string } | { settings: Record<string, unknown> }) => {
      const answer =
        "preset" in what
          ? await data(
              api.POST("/api/v1/optimization/apply-preset/{preset_id}", {
                params: { path: { preset_id: what.preset } },
              }),
            )
          : await data(api.POST("/api/v1/system/optimization", { body: what.settings as Schemas["OptimizationBody"] }));
      return answer.message;
    },
    onSuccess: (title) => say({ title, action: { label: "Undo", run: () => undo.mutate() } }),
    onError: (error) => say({ title: asProblem(error).message, text: asProblem(error).suggestions[0], urgent: true }),
    onSettled: again,
  });
  const error = advice.error ?? presets.error;
  if (!advice.data || !presets.data) return error && <ProblemNote error={error} />;
  const { recommendations } = advice.data;
  return (
    <Panel title="What would help most">
      {recommendations.length === 0 && (
        <p className="text-soft">Nothing: the settings in force are the best for the models that are here.</p>
      )}
      <ul className="space-y-3">
        {recommendations.map((one) => (
          <li key={one.message} className="flex flex-wrap items-start gap-3">
            <div className="min-w-0 flex-1">
              <p className="font-medium">{one.message}</p>
              <p className="text-soft">{one.reason}</p>
            </div>
            {one.settings && (
              <Button
                size="small"
                kind="primary"
                disabled={!allowed || apply.isPending}
                onClick={() => apply.mutate({ settings: one.settings ?? {} })}
              >
                Apply it
              </Button>
            )}
          </li>
        ))}
      </ul>
      <details className="mt-3">
        <summary className="font-medium">Presets</summary>
        <ul>
          {Object.entries(presets.data.presets).map(([id, preset]) => (
            <li key={id} className="flex flex-wrap items-start gap-3 border-t border-edge py-2 first:border-t-0">
              <div className="min-w-0 flex-1">
                <p className="flex flex-wrap items-center gap-2 font-medium">
                  {preset.name}
                  {presets.data.system_info.recommended_presets.includes(id) && (
                    <Badge tone="good">Costs no time here</Badge>
                  )}
                  {!preset.compatible && <Badge tone="warn">Does not fit</Badge>}
                </p>
                <p>
                  {preset.description}. For {preset.recommended_for}.
                </p>
                <p className="text-xs text-soft">
                  {preset.performance_impact}. Quality: {preset.quality_impact}.
                </p>
              </div>
              <Button
                size="small"
                disabled={!allowed || !preset.compatible || apply.isPending}
                aria-label={`Apply the preset ${preset.name}`}
                onClick={() => apply.mutate({ preset: id })}
              >
                Apply
              </Button>
            </li>
          ))}
        </ul>
      </details>
    </Panel>
  );
}
