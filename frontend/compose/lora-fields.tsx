/** The LoRAs of the clip, with a strength for each expert, and whether they fit the model. */

import { useQuery } from "@tanstack/react-query";
import { TextQuote, X } from "lucide-react";
import { api, data, type Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import { type LoraChoice, type Model, setDraft, useDraft } from "@/tasks/draft";
import { IconButton } from "@/ui/button";
import { SelectField, SliderField, Toggle } from "@/ui/fields";

type Lora = Schemas["LoraInfo"];

export function LoraFields({ model }: { model: Model | undefined }) {
  const chosen = useDraft((draft) => draft.loras);
  const preset = useDraft((draft) => draft.preset);
  const { data: list } = useQuery({ queryKey: KEYS.loras, queryFn: () => data(api.GET("/api/v1/lora")) });
  const loras = list?.loras ?? [];
  const free = loras.filter((lora) => !chosen.some((one) => one.id === lora.id));
  const fits = (lora: Lora) => !model || lora.compatible_models.includes(model.id);
  const ordered = [...free].sort((a, b) => Number(fits(b)) - Number(fits(a)) || a.title.localeCompare(b.title));
  const set = (index: number, changes: Partial<LoraChoice>) =>
    setDraft({ loras: chosen.map((one, place) => (place === index ? { ...one, ...changes } : one)) });
  // Its place is kept until the list is known, so that nothing below it jumps.
  if (list && loras.length === 0 && chosen.length === 0) return null;
  return (
    <fieldset className="space-y-2">
      <legend className="sr-only">LoRAs</legend>
      <SelectField
        label="LoRAs"
        value=""
        disabled={chosen.length >= 8}
        choices={[
          { value: "", label: list && free.length === 0 ? "All are added" : "Add one …" },
          ...ordered.map((lora) => ({
            value: lora.id,
            label: fits(lora) ? lora.title : `${lora.title} · not for this model`,
            disabled: lora.problem != null,
          })),
        ]}
        onChange={(id) => id && setDraft({ loras: [...chosen, { id, strength: 1, strength_2: 1 }] })}
      />
      {chosen.map((one, index) => {
        const lora = loras.find((other) => other.id === one.id);
        const two = (model?.experts ?? 1) > 1;
        return (
          <div key={one.id} className="space-y-1 rounded-lg border border-edge p-2.5">
            <div className="flex items-center gap-1">
              <strong className="min-w-0 flex-1 truncate font-medium">{lora?.title ?? one.id}</strong>
              {lora && lora.trigger_words.length > 0 && (
                <IconButton
                  size="small"
                  icon={TextQuote}
                  label={`Add its words to the prompt: ${lora.trigger_words.join(", ")}`}
                  onClick={() => {
                    const { prompt } = useDraft.getState();
                    const missing = lora.trigger_words.filter(
                      (word) => !prompt.toLowerCase().includes(word.toLowerCase()),
                    );
                    if (missing.length > 0)
                      setDraft({ prompt: [prompt.trim(), ...missing].filter(Boolean).join(", ") });
                  }}
                />
              )}
              <IconButton
                size="small"
                icon={X}
                label={`Remove ${lora?.title ?? one.id}`}
                onClick={() =>
                  setDraft({
                    loras: chosen.filter((other) => other.id !== one.id),
                    ...(preset === one.id ? { preset: null } : {}),
                  })
                }
              />
            </div>
            <SliderField
              label={two ? "Strength, high-noise expert" : "Strength"}
              min={0}
              max={2}
              step={0.05}
              value={one.strength}
              onChange={(strength) => set(index, two ? { strength } : { strength, strength_2: strength })}
            />
            {two && (
              <SliderField
                label="Strength, low-noise expert"
                min={0}
                max={2}
                step={0.05}
                value={one.strength_2}
                onChange={(strength_2) => set(index, { strength_2 })}
              />
            )}
            {lora?.preset && (
              <Toggle
                label="Use its own steps and guidance"
                hint="It was made for few steps; what you set yourself still holds."
                checked={preset === one.id}
                onChange={(on) => setDraft({ preset: on ? one.id : null })}
              />
            )}
            {!lora && <p className="text-xs text-danger">The server has no LoRA of this name.</p>}
            {lora && !fits(lora) && (
              <p className="text-xs text-warn">
                Made for {lora.base ?? "another model"}: it is skipped, and the clip says so.
              </p>
            )}
          </div>
        );
      })}
    </fieldset>
  );
}
