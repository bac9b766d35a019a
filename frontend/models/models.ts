/** The models as the page sees them: what is asked of the server, what can be done, and words for states. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { duration } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import { usePolling } from "@/live/connection";
import type { Tone } from "@/ui/status";
import { say } from "@/ui/toasts";

export type Model = Schemas["ModelInfo"];
export type Details = Schemas["ModelDetails"];
export type Fit = Schemas["ModelFit"];
export type Download = Schemas["DownloadView"];
export type Urgency = Schemas["Urgency"];

/** Everything that is known about one model. */
export type Row = { model: Model; details?: Details; fit?: Fit; download?: Download };

const POLL_MS = 5_000;

export const useModels = () => {
  const refetchInterval = usePolling(POLL_MS);
  return useQuery({ queryKey: KEYS.models, queryFn: () => data(api.GET("/api/v1/models")), refetchInterval });
};

export const useModelDetails = () =>
  useQuery({ queryKey: [...KEYS.models, "details"], queryFn: () => data(api.GET("/api/v1/models/status/detailed")) });

/** Which models this machine runs. The answer changes with the machine and the settings alone. */
export const useFits = () =>
  useQuery({ queryKey: KEYS.fits, queryFn: () => data(api.GET("/api/v1/models/fit")), staleTime: 300_000 });

export const useDownloads = () => {
  const refetchInterval = usePolling(POLL_MS);
  return useQuery({
    queryKey: KEYS.downloads,
    queryFn: () => data(api.GET("/api/v1/models/download/progress")),
    refetchInterval,
  });
};

const MODES: Record<string, string> = {
  t2v: "Text to video",
  i2v: "Image to video",
  ti2v: "Text or image to video",
};

/** What a model is good for. */
export function modeInWords(mode: string): string {
  return MODES[mode.toLowerCase()] ?? mode;
}

const STATES: Record<string, [string, Tone]> = {
  available: ["Installed", "good"],
  missing: ["Not installed", "plain"],
  partial: ["Partly here", "warn"],
  corrupted: ["Damaged", "danger"],
  unsupported: ["Form not supported", "danger"],
  queued: ["Download waits", "accent"],
  downloading: ["Downloading", "accent"],
  verifying: ["Verifying", "accent"],
  paused: ["Download paused", "warn"],
  failed: ["Download failed", "danger"],
};

/** The state of a model or of its download, in words and in a colour. */
export function stateInWords(state: string): { label: string; tone: Tone } {
  const [label, tone] = STATES[state] ?? [state, "plain" as Tone];
  return { label, tone };
}

/** Whether a download still has something to do, or holds bytes that wait. */
export function underWay(download: Download | undefined): download is Download {
  return download !== undefined && !["completed", "cancelled"].includes(download.status);
}

/** The state of a row: that of its download where it says more. */
export function stateOf({ model, download }: Row): string {
  return !model.is_available && underWay(download) ? download.status : model.status;
}

/** Whether this machine runs the model: a word, and the sentence behind it. */
export function fitInWords(fit: Fit): { label: string; tone: Tone; why: string } {
  const time = fit.seconds == null ? "" : `A clip of ${fit.clip} takes about ${duration(fit.seconds)}. `;
  const words = { yes: ["Yes", "good"], slowly: ["Slowly", "warn"], no: ["No", "danger"] } as const;
  const [label, tone] = words[fit.verdict];
  return { label, tone, why: time + sentence(fit.reason) };
}

/** The text as a sentence: a capital first and a full stop last. Names of models and plans keep their spelling. */
export function sentence(text: string): string {
  const first = /^[a-z]+ /.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** What a pause of a download says: what failed, the attempt, and the seconds that are left. */
export function retryInWords(download: Download, now: number): string | null {
  const { retry } = download;
  if (!retry) return null;
  const left = Math.max(0, Math.ceil((Date.parse(download.last_update) + retry.seconds * 1000 - now) / 1000));
  return `${sentence(retry.message)} Attempt ${retry.count} of ${retry.most} again ${left ? `in ${left} s` : "now"}.`;
}

export const FILTERS = [
  { value: "all", label: "All" },
  { value: "here", label: "Installed" },
  { value: "fits", label: "Fit this machine" },
] as const;
export type Filter = (typeof FILTERS)[number]["value"];

/** The rows that a filter leaves, in the order of use: what is here, what comes, what fits, the rest. */
export function chosenRows(rows: readonly Row[], filter: Filter): Row[] {
  const rank = (row: Row) => {
    if (underWay(row.download)) return 0;
    if (row.model.is_available) return row.model.embedded ? 2 : 1;
    if (row.model.status !== "missing") return 1;
    return { yes: 3, slowly: 4, no: 5 }[row.fit?.verdict ?? "no"];
  };
  return rows
    .filter(
      (row) => filter === "all" || (filter === "here" ? row.model.status !== "missing" : row.fit?.verdict !== "no"),
    )
    .map((row, place) => ({ row, place }))
    .sort((a, b) => rank(a.row) - rank(b.row) || a.place - b.place)
    .map(({ row }) => row);
}

function failed(error: unknown) {
  const { message, suggestions } = asProblem(error);
  say({ title: message, text: suggestions[0], urgent: true });
}

/** What can be done to downloads; each deed tells of its failure by itself. */
export function useDownloadDeeds() {
  const cache = useQueryClient();
  const onSettled = () => {
    void cache.invalidateQueries({ queryKey: KEYS.downloads });
    void cache.invalidateQueries({ queryKey: KEYS.models });
  };
  const start = useMutation({
    mutationFn: (id: string) => data(api.POST("/api/v1/models/download", { body: { model_type: id } })),
    onError: failed,
    onSettled,
  });
  const manage = useMutation({
    mutationFn: (body: Schemas["Manage"]) => data(api.POST("/api/v1/models/download/manage", { body })),
    onError: failed,
    onSettled,
  });
  return { start, manage };
}
