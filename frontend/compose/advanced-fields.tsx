/** What most people leave to the model: seed, variations, steps, guidance, sampler, and what the file is like. */

import { Dices, Lock, LockOpen } from "lucide-react";
import { useCommands } from "@/app/commands";
import { type Draft, type Model, setDraft, useDraft } from "@/tasks/draft";
import { IconButton } from "@/ui/button";
import { NumberField, SelectField, Toggle } from "@/ui/fields";

const MOST_VARIATIONS = 16;

function drawn(most: number): number {
  const [number] = crypto.getRandomValues(new Uint32Array(1));
  return (number ?? 0) % (most + 1);
}

export function AdvancedFields({ model }: { model: Model | undefined }) {
  const draft = useDraft();
  const own = (name: string) => (model?.defaults[name] === undefined ? "" : String(model.defaults[name]));
  const most = (name: string, otherwise: number) => Number(model?.limits[name] ?? otherwise);
  const mostSeed = most("max_seed", 4294967295);
  const dice = () => setDraft({ seed: drawn(mostSeed) });
  useCommands([{ id: "compose.dice", title: "Draw a seed", group: "Create", icon: Dices, run: dice }]);
  const touched = (
    ["steps", "guidance_scale", "guidance_scale_2", "flow_shift", "scheduler", "fps", "crf"] as const
  ).filter((field) => draft[field] !== null).length;
  return (
    <div className="space-y-3">
      <div className="grid grid-cols-2 gap-3">
        <div className="flex items-end gap-1">
          <div className="min-w-0 flex-1">
            <NumberField
              label="Seed"
              min={0}
              max={mostSeed}
              step={1}
              placeholder="Another each time"
              value={draft.seed}
              onChange={(seed) => setDraft({ seed })}
            />
          </div>
          <IconButton icon={Dices} label="Draw a seed" onClick={dice} />
          <IconButton
            icon={draft.seed === null ? LockOpen : Lock}
            label={draft.seed === null ? "Keep one seed" : "Another seed each time"}
            pressed={draft.seed !== null}
            onClick={() => setDraft({ seed: draft.seed === null ? drawn(mostSeed) : null })}
          />
        </div>
        <NumberField
          label="Variations"
          min={1}
          max={MOST_VARIATIONS}
          step={1}
          value={draft.variations}
          onChange={(count) => setDraft({ variations: Math.min(MOST_VARIATIONS, Math.max(1, Math.round(count ?? 1))) })}
          hint="With seeds that follow each other"
        />
      </div>
      <details>
        <summary className="text-soft">More settings{touched > 0 && ` · ${touched} changed`}</summary>
        <div className="grid grid-cols-2 gap-3 pt-3">
          <NumberField
            label="Steps"
            min={1}
            max={most("max_steps", 100)}
            placeholder={own("steps")}
            value={draft.steps}
            onChange={(steps) => setDraft({ steps })}
          />
          <SelectField
            label="Sampler"
            value={draft.scheduler ?? ""}
            choices={[
              { value: "", label: "The model's own" },
              { value: "unipc", label: "UniPC" },
              { value: "euler", label: "Euler" },
              { value: "dmd", label: "DMD (distilled models)" },
            ]}
            onChange={(value) => setDraft({ scheduler: (value || null) as Draft["scheduler"] })}
          />
          <NumberField
            label={(model?.experts ?? 1) > 1 ? "Guidance, high noise" : "Guidance"}
            min={0}
            max={most("max_guidance", 20)}
            step={0.1}
            placeholder={own("guidance_scale")}
            value={draft.guidance_scale}
            onChange={(guidance_scale) => setDraft({ guidance_scale })}
          />
          {(model?.experts ?? 1) > 1 && (
            <NumberField
              label="Guidance, low noise"
              min={0}
              max={most("max_guidance", 20)}
              step={0.1}
              placeholder={own("guidance_scale_2")}
              value={draft.guidance_scale_2}
              onChange={(guidance_scale_2) => setDraft({ guidance_scale_2 })}
            />
          )}
          <NumberField
            label="Flow shift"
            min={0}
            step={0.5}
            placeholder={own("flow_shift")}
            value={draft.flow_shift}
            onChange={(flow_shift) => setDraft({ flow_shift })}
          />
          <NumberField
            label="Frames a second"
            min={1}
            max={most("max_fps", 60)}
            placeholder={own("fps")}
            value={draft.fps}
            onChange={(fps) => setDraft({ fps })}
          />
          <NumberField
            label="Compression (CRF)"
            min={1}
            max={51}
            placeholder="17"
            value={draft.crf}
            onChange={(crf) => setDraft({ crf })}
            hint="1 is best, 51 smallest"
          />
          <div className="col-span-2">
            <Toggle
              label="Keep the latents"
              hint="The clip can be decoded again later, at other speeds and sizes of file."
              checked={draft.keep_latents}
              onChange={(keep_latents) => setDraft({ keep_latents })}
            />
          </div>
        </div>
      </details>
    </div>
  );
}
