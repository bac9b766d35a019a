/** What the clip will take, before it is queued: time, memory, disk, whether it fits, and what would. */

import type { UseQueryResult } from "@tanstack/react-query";
import { useState } from "react";
import { bytes, duration } from "@/app/format";
import type { Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { type Model, setDraft } from "@/tasks/draft";
import { Button } from "@/ui/button";

type Estimated = Schemas["Estimated"];
type Quantity = Schemas["Quantity"];

type EstimatePanelProps = { estimate: UseQueryResult<Estimated>; model: Model | undefined };

export function EstimatePanel({ estimate }: EstimatePanelProps) {
  const [details, setDetails] = useState(false);
  const { data: made, error } = estimate;
  if (error) return <ProblemNote error={error} />;
  if (!made) return <p className="min-h-11 text-soft">Time, memory and disk are shown here while you write.</p>;
  const { plan } = made;
  const notes = made.adjustments.filter((one) => !made.prompt_notes.includes(one));
  return (
    <div className="min-h-11 space-y-1.5" data-testid="estimate">
      <dl className="flex flex-wrap gap-x-4 gap-y-0.5 tabular-nums">
        <Figure
          name="Time"
          quantity={plan?.seconds}
          show={(one) => `${one.basis === "measured" ? "" : "≈ "}${duration(one.value)}`}
        />
        <Figure name="VRAM" quantity={plan?.vram} show={(one) => `${one.value.toFixed(1)} GiB`} />
        <Figure
          name="RAM"
          quantity={plan && sum(plan.ram_pageable, plan.ram_pinned)}
          show={(one) => `${one.value.toFixed(1)} GiB`}
        />
        <Figure name="Disk" quantity={plan?.disk} show={(one) => bytes(one.value * 1024 ** 3)} />
      </dl>
      <p className="flex flex-wrap items-center gap-2" data-testid="fits">
        {made.fits ? (
          <span className="text-good">Fits this machine</span>
        ) : (
          <span className="text-danger">Does not fit this machine</span>
        )}
        <button
          type="button"
          className="text-xs text-soft underline"
          aria-expanded={details}
          onClick={() => setDetails(!details)}
        >
          Why
        </button>
        {!made.fits && made.would_fit && <Nearest fit={made.would_fit} />}
      </p>
      {made.download && (
        <p className="text-xs text-warn">
          First {made.download.model_type} is downloaded:{" "}
          {made.download.bytes ? bytes(made.download.bytes) : `${made.download.weights_gb} GB`}.
        </p>
      )}
      {notes.map((note) => (
        <p key={note} className="text-xs text-soft">
          {note}
        </p>
      ))}
      {details && (
        <ul className="max-h-40 list-disc overflow-y-auto pl-4 text-xs text-soft">
          {[plan?.reason, ...made.reasons].filter(Boolean).map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Nearest({ fit }: { fit: Schemas["WouldFit"] }) {
  const { model_type, resolution, num_frames, steps } = fit;
  return (
    <Button size="small" onClick={() => setDraft({ model: model_type, resolution, seconds: null, num_frames, steps })}>
      Apply what fits: {resolution}, {num_frames} frames, {steps} steps
    </Button>
  );
}

function sum(a: Quantity, b: Quantity): Quantity {
  return { ...a, value: a.value + b.value };
}

type FigureProps = { name: string; quantity: Quantity | null | undefined; show: (quantity: Quantity) => string };

function Figure({ name, quantity, show }: FigureProps) {
  if (!quantity) return null;
  return (
    <div className="flex gap-1.5">
      <dt className="text-soft">{name}</dt>
      <dd className="font-medium">{show(quantity)}</dd>
    </div>
  );
}
