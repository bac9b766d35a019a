/** What the models take on the disk, the speed that downloads may have, and what could go. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { BrushCleaning } from "lucide-react";
import { type FormEvent, useEffect, useState } from "react";
import { bytes, counted } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { NumberField } from "@/ui/fields";
import { Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { type Model, sentence, useDownloadDeeds } from "./models";

const GB = 1e9;
const MIB = 1024 * 1024;
const KEEP_DAYS = 30;
/** Where the limit of downloads is among the settings. */
const LIMIT = "downloads.bandwidth_limit_mbps";

const ACTIONS: Record<string, string> = {
  delete_model: "The model",
  delete_unfinished: "An unfinished download",
  delete_quarantine: "Damaged files that were put aside",
};

function ask(body: Partial<Schemas["CleanupAsked"]>) {
  return data(api.POST("/api/v1/models/cleanup", { body: { keep_recent_days: KEEP_DAYS, dry_run: true, ...body } }));
}

export const useDisk = () =>
  useQuery({ queryKey: [...KEYS.models, "disk"], queryFn: () => ask({ dry_run: true }), staleTime: 60_000 });

export function DiskPanel({ models, allowed }: { models: Model[]; allowed: boolean }) {
  const { data: disk } = useDisk();
  const [cleaning, setCleaning] = useState(false);
  const here = models.filter((model) => model.size_mb && !model.embedded);
  const taken = here.reduce((sum, model) => sum + (model.size_mb ?? 0) * MIB, 0);
  const free = disk ? disk.recommendations.total_space_available_gb * GB : 0;
  const could = disk?.recommendations.cleanup_actions ?? [];
  return (
    <Panel title="Disk">
      <div className="grid gap-4 md:grid-cols-3">
        <div className="space-y-1">
          <p>
            Models take <strong>{bytes(taken)}</strong>
          </p>
          {disk ? (
            <p className="text-soft" data-testid="disk-free">
              {bytes(free)} are free on this disk.
            </p>
          ) : (
            <Skeleton className="h-5 w-40" />
          )}
        </div>
        <BandwidthForm first={models[0]?.id} allowed={allowed} />
        <div className="flex flex-col items-start gap-1">
          <Button
            icon={BrushCleaning}
            disabled={!allowed || !disk}
            onClick={() => setCleaning(true)}
            data-testid="cleanup"
          >
            See what could go
          </Button>
          <p className="text-xs text-soft">
            {could.length > 0
              ? `${counted(could.length, "thing")}, ${bytes(could.reduce((sum, one) => sum + one.space_gb * GB, 0))}`
              : "Nothing is left over, and nothing has been unused for a month."}
          </p>
        </div>
      </div>
      {cleaning && <CleanupDialog onClose={() => setCleaning(false)} />}
    </Panel>
  );
}

function BandwidthForm({ first, allowed }: { first?: string; allowed: boolean }) {
  const { manage } = useDownloadDeeds();
  const cache = useQueryClient();
  const { data: settings } = useQuery({ queryKey: KEYS.settings, queryFn: () => data(api.GET("/api/v1/config")) });
  const limit = (settings?.settings.find((one) => one.name === LIMIT)?.value ?? null) as number | null;
  const [wanted, setWanted] = useState<number | null>(limit);
  useEffect(() => setWanted(limit), [limit]);
  function save(event: FormEvent) {
    event.preventDefault();
    if (!first) return;
    manage.mutate(
      { model_id: first, action: "bandwidth", bandwidth_limit_mbps: wanted },
      {
        onSuccess: ({ message }) => {
          say({ title: message });
          void cache.invalidateQueries({ queryKey: KEYS.settings });
        },
      },
    );
  }
  return (
    <form className="flex items-end gap-2" onSubmit={save}>
      <NumberField
        label="Limit of each download, MB/s"
        placeholder="No limit"
        min={0.001}
        step="any"
        value={wanted}
        onChange={setWanted}
        disabled={!allowed}
        data-testid="bandwidth"
      />
      <Button type="submit" disabled={!allowed || wanted === limit || manage.isPending}>
        Set
      </Button>
    </form>
  );
}

/** Shows what would be deleted first; the second button deletes just that. */
function CleanupDialog({ onClose }: { onClose: () => void }) {
  const cache = useQueryClient();
  const [days, setDays] = useState<number | null>(KEEP_DAYS);
  const keep = days ?? KEEP_DAYS;
  const look = useQuery({ queryKey: ["cleanup", keep], queryFn: () => ask({ keep_recent_days: keep }), staleTime: 0 });
  const clean = useMutation({
    mutationFn: () => ask({ keep_recent_days: keep, dry_run: false }),
    onSuccess: (done) => {
      say({ title: `${bytes(done.total_space_freed_gb * GB)} are free again` });
      onClose();
    },
    onSettled: () => cache.invalidateQueries({ queryKey: KEYS.models }),
  });
  const found = look.data?.recommendations.cleanup_actions ?? [];
  const invalid = days === null || days < 0 || !Number.isInteger(days);
  return (
    <Dialog
      open
      onClose={onClose}
      title="Free disk space"
      description="What tasks wait for, what a worker holds, and files that you put there yourself stay."
      testId="cleanup-dialog"
      footer={
        <>
          <Button onClick={onClose}>Keep everything</Button>
          <Button
            kind="danger"
            disabled={found.length === 0 || invalid || clean.isPending}
            onClick={() => clean.mutate()}
          >
            Delete these
          </Button>
        </>
      }
    >
      <div className="space-y-3">
        <div className="max-w-56">
          <NumberField
            label="Keep models used within, days"
            min={0}
            step={1}
            value={days}
            onChange={setDays}
            error={invalid ? "A whole number of days, 0 or more." : undefined}
          />
        </div>
        {look.error && <ProblemNote error={look.error} />}
        {clean.error && <ProblemNote error={asProblem(clean.error)} />}
        <div role="status">
          {look.data && found.length === 0 && <p className="text-soft">Nothing would be deleted.</p>}
          <ul className="space-y-2">
            {found.map((one) => (
              <li key={`${one.action}-${one.model_id}`} className="flex justify-between gap-3">
                <span className="min-w-0">
                  <span className="font-medium">{one.model_id}</span> · {ACTIONS[one.action] ?? one.action}
                  <span className="block text-soft">{sentence(one.reason)}</span>
                </span>
                <span className="whitespace-nowrap">{bytes(one.space_gb * GB)}</span>
              </li>
            ))}
          </ul>
        </div>
      </div>
    </Dialog>
  );
}
