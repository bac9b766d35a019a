/** All models: which are here, which this machine runs, and their files from download to removal. */

import { Boxes, FolderInput } from "lucide-react";
import { useState } from "react";
import { useCommands } from "@/app/commands";
import { counted } from "@/app/format";
import { ProblemNote } from "@/http/problem-note";
import { useAllowed, useLacks } from "@/system/session";
import { Button } from "@/ui/button";
import { TextField } from "@/ui/fields";
import { PageFrame } from "@/ui/page";
import { Segments } from "@/ui/segments";
import { Empty, Note, Skeleton } from "@/ui/status";
import { AdoptDialog } from "./adopt-dialog";
import { DiskPanel, useDisk } from "./disk-panel";
import { ModelCard } from "./model-card";
import {
  chosenRows,
  FILTERS,
  type Filter,
  type Row,
  stateOf,
  underWay,
  useDownloadDeeds,
  useDownloads,
  useFits,
  useModelDetails,
  useModels,
} from "./models";
import { RemoveDialog } from "./remove-dialog";
import { VerifyDialog } from "./verify-dialog";

const PLACES = ["first", "second", "third", "fourth", "fifth", "sixth"];

export default function ModelsPage() {
  const models = useModels();
  const details = useModelDetails();
  const fits = useFits();
  const downloads = useDownloads();
  const disk = useDisk();
  const { manage } = useDownloadDeeds();
  const allowed = useAllowed("models");
  const lacks = useLacks("models");
  const [filter, setFilter] = useState<Filter>("all");
  const [search, setSearch] = useState("");
  const [open, setOpen] = useState<{ what: "verify" | "remove" | "adopt"; id: string } | null>(null);

  const rows: Row[] = (models.data?.models ?? []).map((model) => ({
    model,
    details: details.data?.models[model.id],
    fit: fits.data?.models[model.id],
    download: downloads.data?.[model.id],
  }));
  const running = rows.filter((row) => underWay(row.download) && row.download.can_pause);
  const paused = rows.filter((row) => underWay(row.download) && row.download.can_resume);
  useCommands([
    {
      id: "models.pause-downloads",
      title: "Pause all downloads",
      group: "Models",
      enabled: allowed && running.length > 0,
      run: () => {
        for (const row of running) manage.mutate({ model_id: row.model.id, action: "pause" });
      },
    },
    {
      id: "models.adopt",
      title: "Adopt models from other programs",
      group: "Models",
      enabled: allowed,
      run: () => setOpen({ what: "adopt", id: "" }),
    },
    {
      id: "models.resume-downloads",
      title: "Resume all downloads",
      group: "Models",
      enabled: allowed && paused.length > 0,
      run: () => {
        for (const row of paused) manage.mutate({ model_id: row.model.id, action: "resume" });
      },
    },
  ]);

  const wanted = search.trim().toLowerCase();
  const shown = chosenRows(rows, filter).filter(({ model }) =>
    `${model.id} ${model.title} ${model.aliases.join(" ")} ${model.mode}`.toLowerCase().includes(wanted),
  );
  const chosen = rows.find((row) => row.model.id === open?.id);
  const here = rows.filter((row) => row.model.is_available).length;
  const changing = rows.filter((row) => underWay(row.download)).map((row) => `${row.model.id}: ${stateOf(row)}`);

  // Shown at once, so that nothing that comes later moves what is there.
  const ready = [models, fits, details, disk].every((one) => one.data || one.error);

  return (
    <PageFrame
      title="Models"
      about="What makes the clips. The tiny ones ship with wan22 and run anywhere; the full-size ones are downloaded once and verified."
    >
      {models.error && !models.data && <ProblemNote error={models.error} retry={() => void models.refetch()} />}
      {!models.error && !ready && <Loading />}
      {models.data && ready && (
        <>
          {lacks && <Note tone="warn">Your key may look at models, not change them.</Note>}
          <DiskPanel models={models.data.models} allowed={allowed} />
          <div className="flex flex-wrap items-center gap-3">
            <Segments label="Which models" value={filter} choices={FILTERS} onChange={setFilter} />
            <div className="w-56">
              <TextField
                label="Search models"
                bare
                type="search"
                placeholder="Search"
                value={search}
                onChange={(event) => setSearch(event.target.value)}
              />
            </div>
            <Button icon={FolderInput} disabled={!allowed} onClick={() => setOpen({ what: "adopt", id: "" })}>
              Adopt from other programs
            </Button>
            <p className="text-soft">
              {here} of {counted(rows.length, "model")} installed
            </p>
          </div>
          <p role="status" className="sr-only">
            {changing.join(". ")}
          </p>
          {fits.error && <ProblemNote error={fits.error} retry={() => void fits.refetch()} />}
          {shown.length === 0 && (
            <Empty icon={Boxes} title="No model is like that">
              Try another word, or show all of them.
            </Empty>
          )}
          <div className="grid items-stretch gap-3 lg:grid-cols-2 2xl:grid-cols-3">
            {shown.map((row) => (
              <ModelCard
                key={row.model.id}
                row={row}
                allowed={allowed}
                onVerify={() => setOpen({ what: "verify", id: row.model.id })}
                onRemove={() => setOpen({ what: "remove", id: row.model.id })}
              />
            ))}
          </div>
        </>
      )}
      {open?.what === "adopt" && <AdoptDialog onClose={() => setOpen(null)} />}
      {chosen && open?.what === "verify" && <VerifyDialog model={chosen.model} onClose={() => setOpen(null)} />}
      {chosen && open?.what === "remove" && (
        <RemoveDialog model={chosen.model} details={chosen.details} onClose={() => setOpen(null)} />
      )}
    </PageFrame>
  );
}

function Loading() {
  return (
    <div role="status" aria-label="Reading the models" className="space-y-4">
      <Skeleton className="h-36" />
      <div className="grid gap-3 lg:grid-cols-2 2xl:grid-cols-3">
        {PLACES.map((place) => (
          <Skeleton key={place} className="h-72" />
        ))}
      </div>
    </div>
  );
}
