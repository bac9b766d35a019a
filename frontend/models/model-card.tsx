/** One model: what it is good for, whether it is here and fits, and what can be done with its files. */

import {
  CircleCheck,
  CircleX,
  Download as DownloadIcon,
  Ellipsis,
  ExternalLink,
  ShieldCheck,
  Trash2,
  Turtle,
  Wrench,
} from "lucide-react";
import { bytes, counted, moment } from "@/app/format";
import { Button, IconButton } from "@/ui/button";
import { ActionMenu } from "@/ui/menu";
import { Facts } from "@/ui/page";
import { Badge, Skeleton } from "@/ui/status";
import { DownloadRow } from "./download-row";
import {
  fitInWords,
  modeInWords,
  type Row,
  sentence,
  stateInWords,
  stateOf,
  underWay,
  useDownloadDeeds,
} from "./models";

const MIB = 1024 * 1024;
const GB = 1e9;
const FIT_ICONS = { yes: CircleCheck, slowly: Turtle, no: CircleX };
const FIT_COLOURS = { yes: "text-good", slowly: "text-warn", no: "text-danger" };

type CardProps = { row: Row; allowed: boolean; onVerify: () => void; onRemove: () => void };

function FitLine({ row }: { row: Row }) {
  if (!row.fit) return <Skeleton className="h-10" />;
  const { label, why } = fitInWords(row.fit);
  const Icon = FIT_ICONS[row.fit.verdict];
  return (
    <div className="flex gap-2" data-testid="model-fit">
      <Icon aria-hidden className={`mt-0.5 size-4 shrink-0 ${FIT_COLOURS[row.fit.verdict]}`} />
      <p className="min-w-0 break-words">
        <span className="font-medium">Fits this machine: {label.toLowerCase()}.</span>{" "}
        <span className="text-soft">{why}</span>
      </p>
    </div>
  );
}

export function ModelCard({ row, allowed, onVerify, onRemove }: CardProps) {
  const { start } = useDownloadDeeds();
  const { model, details, download } = row;
  const state = stateInWords(stateOf(row));
  const here = model.status !== "missing";
  const broken = model.status === "corrupted" || model.status === "unsupported";
  const coming = underWay(download) && !model.is_available;
  const used = details?.usage_frequency ?? 0;
  return (
    <article
      className="flex flex-col gap-3 rounded-xl border border-edge bg-panel p-4"
      aria-label={model.title}
      data-testid={`model-${model.id}`}
    >
      <header className="flex items-start gap-2">
        <div className="min-w-0 flex-1">
          <h2 className="font-semibold break-words">{model.title}</h2>
          <p className="text-xs text-soft">
            {modeInWords(model.mode)} · {model.id}
          </p>
        </div>
        <Badge tone={state.tone} testId="model-state">
          {state.label}
        </Badge>
        {details?.is_loaded && <Badge tone="accent">In memory</Badge>}
        {here && !model.embedded && (
          <ActionMenu
            trigger={<IconButton label={`More for ${model.id}`} icon={Ellipsis} size="small" className="-my-1 -mr-2" />}
            entries={[
              { label: "Verify", icon: ShieldCheck, disabled: !allowed, run: onVerify },
              { label: "Remove", icon: Trash2, danger: true, disabled: !allowed, run: onRemove },
            ]}
          />
        )}
      </header>
      <FitLine row={row} />
      {broken && model.reason && (
        <p role="alert" className="text-danger">
          {sentence(model.reason)}
        </p>
      )}
      <Facts
        facts={[
          [
            "Size",
            model.size_mb
              ? `${bytes(model.size_mb * MIB)} on disk`
              : `${bytes(model.weights_gb * GB)} of weights to download, at most`,
          ],
          ["Licence", model.licence],
          [
            "From",
            model.repository ? (
              <a
                key="link"
                className="inline-flex items-center gap-1 text-accent-strong underline underline-offset-2"
                href={`https://huggingface.co/${model.repository}`}
                target="_blank"
                rel="noreferrer"
              >
                <span className="break-all">{model.repository}</span>
                <ExternalLink aria-hidden className="size-3 shrink-0" />
              </a>
            ) : model.embedded ? (
              "Ships with wan22"
            ) : (
              "A folder of your own"
            ),
          ],
          [here ? "On disk" : "Goes to", model.embedded ? "In the package" : (details?.model_path ?? "—")],
          here && !model.embedded
            ? ["Verified", details?.last_health_check ? moment(details.last_health_check) : "Not yet"]
            : null,
          used > 0
            ? [
                "Used",
                `${counted(used, "clip")} in the gallery${details?.last_used ? `, last ${moment(details.last_used)}` : ""}`,
              ]
            : null,
        ]}
      />
      {coming && download && <DownloadRow download={download} allowed={allowed} />}
      <div className="mt-auto flex flex-wrap items-center gap-2">
        {!model.is_available && !coming && model.repository && (
          <Button
            kind={row.fit?.verdict === "no" ? "plain" : "primary"}
            icon={broken ? Wrench : DownloadIcon}
            disabled={!allowed || start.isPending}
            onClick={() => start.mutate(model.id)}
          >
            {broken ? "Repair" : model.status === "partial" ? "Complete the download" : "Download"}
          </Button>
        )}
        {coming && download?.status === "failed" && !download.can_resume && (
          <Button kind="primary" disabled={!allowed || start.isPending} onClick={() => start.mutate(model.id)}>
            Try again
          </Button>
        )}
        {here && !model.embedded && !coming && (
          <Button icon={ShieldCheck} disabled={!allowed} onClick={onVerify}>
            Verify
          </Button>
        )}
      </div>
    </article>
  );
}
