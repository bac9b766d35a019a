/** Uses the model files of other programs: searched for, shown, chosen by model, then linked and verified. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { bytes, counted } from "@/app/format";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Note, ProgressBar, Skeleton } from "@/ui/status";
import { sentence } from "./models";

type Plan = Schemas["AdoptionPlan"];
type Step = Schemas["AdoptionProgress"];

const POLL_MS = 1_000;
const ADOPTION = ["adoption"];

/** Whether something of a plan can be used now: nothing of the model is here, and nobody has to decide first. */
function usable(plan: Plan): boolean {
  return plan.status === "missing" && !plan.question;
}

export function AdoptDialog({ onClose }: { onClose: () => void }) {
  const cache = useQueryClient();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asked, setAsked] = useState(false);
  const survey = useQuery({
    queryKey: [...ADOPTION, "survey"],
    queryFn: () => data(api.POST("/api/v1/models/adoption/survey", {})),
    staleTime: 0,
    gcTime: 0,
  });
  const state = useQuery({
    queryKey: ADOPTION,
    queryFn: () => data(api.GET("/api/v1/models/adoption")),
    refetchInterval: ({ state: { data: now } }) => (now?.models.some((one) => !one.ended) ? POLL_MS : false),
  });
  const adopt = useMutation({
    mutationFn: (models: string[]) => data(api.POST("/api/v1/models/adoption", { body: { models } })),
    onSuccess: (now) => {
      setAsked(true);
      cache.setQueryData(ADOPTION, now);
      void cache.invalidateQueries({ queryKey: ADOPTION, exact: true });
    },
  });
  const steps = state.data?.models ?? [];
  const running = steps.some((one) => !one.ended);
  useEffect(() => {
    if (asked && !running) void cache.invalidateQueries({ queryKey: KEYS.models });
  }, [asked, running, cache]);

  const plans = survey.data?.plans ?? [];
  return (
    <Dialog
      open
      onClose={onClose}
      title="Use files of other programs"
      description="Searched are the Hugging Face cache, ComfyUI and Wan2GP of this account, and the folders that the server's owner named in model_roots. No other folder is read."
      testId="adopt-dialog"
      footer={
        asked || running ? (
          <Button kind="primary" onClick={onClose}>
            {running ? "Go on in the background" : "Done"}
          </Button>
        ) : (
          <>
            <Button onClick={onClose}>Not now</Button>
            <Button
              kind="primary"
              disabled={chosen.size === 0 || adopt.isPending}
              onClick={() => adopt.mutate([...chosen])}
            >
              Use them
            </Button>
          </>
        )
      }
    >
      <div className="space-y-3">
        {survey.error && <ProblemNote error={survey.error} retry={() => void survey.refetch()} />}
        {adopt.error && <ProblemNote error={adopt.error} />}
        {asked || running ? (
          <Steps steps={steps} />
        ) : (
          <>
            {survey.isPending && <Skeleton className="h-32" />}
            {survey.data && plans.length === 0 && (
              <Note>
                Nothing was found in {counted(survey.data.folders, "folder")}. Files elsewhere: name their folder in
                WAN22_MODEL_ROOTS at the machine, or use the command wan22 models adopt --from FOLDER.
              </Note>
            )}
            <ul className="space-y-2">
              {plans.map((plan) => (
                <PlanRow
                  key={plan.model_id}
                  plan={plan}
                  checked={chosen.has(plan.model_id)}
                  onChange={(on) =>
                    setChosen((now) =>
                      on ? new Set([...now, plan.model_id]) : new Set([...now].filter((id) => id !== plan.model_id)),
                    )
                  }
                />
              ))}
            </ul>
            {plans.length > 0 && (
              <p className="text-xs text-soft">
                Files are linked, not copied, and each is read once. The other program keeps them; on another disk they
                are only linked, and must stay there.
              </p>
            )}
          </>
        )}
      </div>
    </Dialog>
  );
}

type RowProps = { plan: Plan; checked: boolean; onChange: (on: boolean) => void };

function PlanRow({ plan, checked, onChange }: RowProps) {
  return (
    <li className="rounded-lg border border-edge p-3">
      <label className="flex items-start gap-2.5">
        <input
          type="checkbox"
          className="mt-0.5 size-4 accent-accent"
          checked={checked}
          disabled={!usable(plan)}
          onChange={(event) => onChange(event.target.checked)}
        />
        <span className="min-w-0 flex-1">
          <span className="block font-medium">{plan.model_id}</span>
          <span className="block text-soft">
            {bytes(plan.found_bytes)} in {counted(plan.files.length, "file")};{" "}
            {plan.missing.length === 0 ? "nothing is missing" : `a download brings ${plan.missing.join(", ")}`}
          </span>
          {plan.status !== "missing" && <span className="block text-soft">It has a folder here already.</span>}
          {plan.question && (
            <span className="block text-warn">
              {sentence(plan.question)} Decide with: wan22 models adopt --use {plan.model_id}/COMPONENT=FILE
            </span>
          )}
        </span>
      </label>
      <details className="mt-1 pl-6 text-xs">
        <summary className="text-soft">Which files</summary>
        <ul>
          {plan.files.map((file) => (
            <li key={file.name} className="break-all">
              {file.file} → {file.name}
            </li>
          ))}
        </ul>
      </details>
    </li>
  );
}

function Steps({ steps }: { steps: Step[] }) {
  return (
    <ul className="space-y-3" aria-live="polite">
      {steps.map((step) => (
        <li key={step.model_id} className="space-y-1" data-testid={`adoption-${step.model_id}`}>
          <p className="flex justify-between gap-2">
            <span className="font-medium">{step.model_id}</span>
            <span className="text-soft">
              {!step.ended
                ? `${bytes(step.done_bytes)} of ${bytes(step.total_bytes)} verified`
                : step.error
                  ? "Not adopted"
                  : step.complete
                    ? "Installed"
                    : "Partly here: download the rest"}
            </span>
          </p>
          <ProgressBar
            value={step.ended ? 100 : (100 * step.done_bytes) / Math.max(1, step.total_bytes)}
            label={`Adoption of ${step.model_id}`}
          />
          {step.error && (
            <p role="alert" className="text-danger">
              {step.error}
            </p>
          )}
        </li>
      ))}
    </ul>
  );
}
