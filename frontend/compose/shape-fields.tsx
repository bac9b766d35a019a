/** Size, length and quality, in words that need no knowledge of the model. */

import { useState } from "react";
import { duration } from "@/app/format";
import type { Schemas } from "@/http/client";
import { type Model, type Quality, setDraft, stepsOf, useDraft } from "@/tasks/draft";
import { NumberField, SelectField, TextField } from "@/ui/fields";
import { Segments } from "@/ui/segments";
import { sizesOf } from "./sizes";

const CUSTOM = "custom";

type ShapeFieldsProps = { model: Model | undefined; estimate: Schemas["Estimated"] | undefined };

export function ShapeFields({ model, estimate }: ShapeFieldsProps) {
  const draft = useDraft();
  const [custom, setCustom] = useState(false);
  const sizes = model ? sizesOf(model) : [];
  const own = String(model?.defaults.resolution ?? "").replace("x", " × ");
  const listed = draft.resolution === null || sizes.some((size) => size.value === draft.resolution);
  const fps = draft.fps ?? Number(model?.defaults.fps ?? 16);
  const most = Number(model?.limits.max_frames ?? 161);
  const frames = draft.num_frames ?? Number(model?.defaults.num_frames ?? 81);
  const steps = Number(model?.defaults.steps ?? 0);
  const mostSteps = Number(model?.limits.max_steps ?? 100);
  const made = estimate?.parameters;
  const words = (quality: Quality, name: string) => ({
    value: quality,
    label: steps ? `${name} · ${stepsOf(quality, steps, mostSteps)}` : name,
  });
  return (
    <div className="space-y-3">
      <div className="grid grid-cols-2 gap-3">
        <SelectField
          label="Size"
          data-testid="resolution-select"
          value={custom || !listed ? CUSTOM : (draft.resolution ?? "")}
          choices={[
            { value: "", label: draft.image ? "As the image" : `The model's own · ${own}` },
            ...sizes.map(({ value, label }) => ({ value, label })),
            { value: CUSTOM, label: "Another …" },
          ]}
          onChange={(value) => {
            setCustom(value === CUSTOM);
            if (value !== CUSTOM) setDraft({ resolution: value || null });
          }}
        />
        <NumberField
          label="Length in seconds"
          min={0}
          max={most / fps}
          step={0.25}
          placeholder={(frames / fps).toFixed(2)}
          value={draft.seconds ?? (draft.num_frames === null ? null : Number((draft.num_frames / fps).toFixed(2)))}
          onChange={(seconds) => setDraft({ seconds, num_frames: null })}
          hint={`${made?.num_frames ?? frames} frames at ${fps} a second`}
        />
      </div>
      {(custom || !listed) && (
        <TextField
          label="Width x height in pixels"
          placeholder={String(model?.defaults.resolution ?? "1280x720")}
          value={draft.resolution ?? ""}
          onChange={(event) =>
            setDraft({ resolution: event.target.value.replace(/\s|×/g, (found) => (found === "×" ? "x" : "")) || null })
          }
          hint={made ? `Becomes ${String(made.resolution)}` : undefined}
        />
      )}
      <div className="space-y-1">
        <p className="font-medium" id="quality-label">
          Quality <span className="font-normal text-soft">· steps</span>
        </p>
        <Segments
          label="Quality, in steps"
          value={draft.steps === null ? draft.quality : ("own" as Quality)}
          choices={[words("draft", "Draft"), words("standard", "Standard"), words("best", "Best")]}
          onChange={(quality) => setDraft({ quality, steps: null })}
        />
        {draft.steps !== null && <p className="text-xs text-soft">{draft.steps} steps, set below.</p>}
      </div>
      <p className="sr-only" role="status">
        {made ? `${String(made.resolution)}, ${duration(Number(made.num_frames) / fps)}` : ""}
      </p>
    </div>
  );
}
