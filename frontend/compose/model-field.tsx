/** Which model makes the clip. With `auto` the server chooses by what the form holds, and says why. */

import type { Schemas } from "@/http/client";
import { type Model, setDraft, useDraft } from "@/tasks/draft";
import { SelectField } from "@/ui/fields";

const MODES: Record<string, string> = { t2v: "text", i2v: "image", ti2v: "text or image" };

type ModelFieldProps = { models: readonly Model[]; estimate: Schemas["Estimated"] | undefined };

export function ModelField({ models, estimate }: ModelFieldProps) {
  const chosen = useDraft((draft) => draft.model);
  const here = models.filter((model) => model.is_available);
  const other = models.filter((model) => !model.is_available);
  const choices = [
    { value: "auto", label: "Automatic" },
    ...here.map((model) => ({ value: model.id, label: `${model.title} · from ${MODES[model.mode] ?? model.mode}` })),
    ...other.map((model) => ({
      value: model.id,
      label: `${model.title} · ${model.repository ? "to download" : "not usable"}`,
    })),
  ];
  if (!choices.some((choice) => choice.value === chosen)) choices.push({ value: chosen, label: chosen });
  const why =
    chosen === "auto" && estimate ? `${String(estimate.parameters.model)}: ${estimate.reasons[0] ?? ""}` : undefined;
  return (
    <SelectField
      label="Model"
      data-testid="model-select"
      value={chosen}
      choices={choices}
      hint={
        <span className="line-clamp-2 min-h-8">
          {why ?? models.find((model) => model.id === chosen)?.reason ?? " "}
        </span>
      }
      onChange={(model) =>
        setDraft({ model, resolution: null, seconds: null, num_frames: null, fps: null, steps: null })
      }
    />
  );
}
