/** The page on which clips are made: the form with what it will cost at the left, what comes of it at the right. */

import { Crown, Play, Square } from "lucide-react";
import { lazy, Suspense, useRef } from "react";
import { useCommands, useShown } from "@/app/commands";
import { ProblemNote } from "@/http/problem-note";
import { useAllowed, useLacks } from "@/system/session";
import { bodyOf, modelOf, setDraft, useDraft } from "@/tasks/draft";
import { unfinished, useQueue, useTaskDeeds } from "@/tasks/queue";
import { useEstimate, useModels, useReady, useSubmit } from "@/tasks/submit";
import { Button } from "@/ui/button";
import { Note } from "@/ui/status";
import { Tip } from "@/ui/tooltip";
import { AdvancedFields } from "./advanced-fields";
import { EstimatePanel } from "./estimate-panel";
import { ImageSlots } from "./image-slots";
import { LoraFields } from "./lora-fields";
import { ModelField } from "./model-field";
import { PromptField } from "./prompt-field";
import { Recent } from "./recent";
import { ShapeFields } from "./shape-fields";

// Menus and windows come after the form is there.
const PresetMenu = lazy(() => import("./preset-menu"));

export default function ComposePage() {
  const draft = useDraft();
  const { data: list } = useModels();
  const models = list?.models ?? [];
  const ready = useReady();
  const allowed = useAllowed("generate");
  const lacks = useLacks("generate");
  const submit = useSubmit();
  const taken = useRef<string | undefined>(undefined);
  const model = modelOf(draft, models, taken.current ?? list?.default ?? undefined);
  const body = bodyOf(draft, model);
  const estimate = useEstimate(body);
  // What `auto` takes is known from the estimate; the form needs it for limits and defaults.
  taken.current = estimate.data ? String(estimate.data.parameters.model) : undefined;
  const { deed } = useTaskDeeds();
  const { data: queue } = useQueue();
  const running = queue?.tasks.find((task) => task.status === "processing");

  const can = ready && allowed && !submit.isPending;
  const generate = (first: boolean) => {
    if (can) submit.mutate({ body, first });
  };
  useCommands([
    {
      id: "compose.generate",
      title: "Generate",
      group: "Create",
      icon: Play,
      key: "mod+enter",
      enabled: can,
      run: () => generate(false),
    },
    {
      id: "compose.first",
      title: "Generate, first in the queue",
      group: "Create",
      icon: Crown,
      key: "mod+shift+enter",
      enabled: can,
      run: () => generate(true),
    },
    {
      id: "compose.cancel",
      title: "Cancel the running clip",
      group: "Create",
      icon: Square,
      key: "mod+alt+enter",
      enabled: running !== undefined,
      run: () => running && deed.mutate({ task: running, what: "cancel" }),
    },
    {
      id: "compose.prompt",
      title: "Go to the prompt",
      group: "Create",
      key: "/",
      run: () => document.querySelector<HTMLTextAreaElement>("[data-testid=prompt-input]")?.focus(),
    },
  ]);
  const key = useShown("compose.generate");
  const keyFirst = useShown("compose.first");
  const quiet = queue !== undefined && !queue.tasks.some(unfinished);

  return (
    <div className="h-full overflow-y-auto lg:flex lg:overflow-hidden">
      <form
        data-testid="generation-form"
        aria-label="New clip"
        className="flex shrink-0 flex-col gap-4 *:shrink-0 border-edge bg-panel p-4 lg:w-[26rem] lg:overflow-y-auto lg:border-r"
        onSubmit={(event) => {
          event.preventDefault();
          generate(false);
        }}
      >
        <div className="flex h-9 items-center justify-between">
          <h1 className="text-base font-semibold whitespace-nowrap">New clip</h1>
          <div className="mr-44 lg:mr-0">
            <Suspense>
              <PresetMenu body={body} />
            </Suspense>
          </div>
        </div>
        <PromptField estimate={estimate.data} model={model} />
        <ModelField models={models} estimate={estimate.data} />
        <ImageSlots model={model} />
        <ShapeFields model={model} estimate={estimate.data} />
        <LoraFields model={model} />
        <AdvancedFields model={model} />
        <div className="sticky bottom-0 -mx-4 mt-auto -mb-4 space-y-2.5 border-t border-edge bg-panel px-4 py-3 lg:-bottom-4">
          {submit.error && (
            <ProblemNote
              error={submit.error}
              steps={(step) =>
                step.action === "resubmit"
                  ? { label: "Apply the change", run: () => setDraft((step.changes ?? {}) as never) }
                  : null
              }
            />
          )}
          <EstimatePanel estimate={estimate} model={model} />
          <div className="flex gap-2">
            <Tip text="Generate" shortcut={key}>
              <Button
                type="submit"
                kind="primary"
                size="large"
                icon={Play}
                data-testid="generate-button"
                disabled={!can}
                className="flex-1"
              >
                {draft.variations > 1 ? `Generate ${draft.variations}` : "Generate"}
              </Button>
            </Tip>
            <Tip text="Generate, first in the queue" shortcut={keyFirst}>
              <Button
                size="large"
                icon={Crown}
                aria-label="Generate, first in the queue"
                disabled={!can}
                onClick={() => generate(true)}
              />
            </Tip>
          </div>
          {lacks && <Note tone="warn">The key of this session may look, but not generate.</Note>}
        </div>
      </form>
      <Recent quiet={quiet} />
    </div>
  );
}
