/** The prompt: counted, with its history at hand, and with help that is shown as a difference before it is taken. */

import { useMutation, useQuery } from "@tanstack/react-query";
import { Check, History, WandSparkles, X } from "lucide-react";
import { lazy, Suspense, useRef, useState } from "react";
import { useCommands } from "@/app/commands";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { type Model, setDraft, useDraft } from "@/tasks/draft";
import { Button, IconButton } from "@/ui/button";
import { TextArea } from "@/ui/fields";
import { compared } from "./words";

const PromptHistory = lazy(() => import("./prompt-history"));

/** How many of the last prompts the keys go through. */
const RECENT = 50;

type PromptFieldProps = { estimate: Schemas["Estimated"] | undefined; model: Model | undefined };

export function PromptField({ estimate, model }: PromptFieldProps) {
  const prompt = useDraft((draft) => draft.prompt);
  const negative = useDraft((draft) => draft.negative_prompt);
  const [history, setHistory] = useState(false);
  const place = useRef(-1);
  const unsent = useRef("");
  const { data: recent } = useQuery({
    queryKey: ["prompts", "recent"],
    queryFn: () => data(api.GET("/api/v1/prompts/history", { params: { query: { limit: RECENT } } })),
  });

  function step(by: number) {
    const prompts = recent?.prompts ?? [];
    const next = Math.min(prompts.length - 1, Math.max(-1, place.current + by));
    if (next === place.current) return;
    if (place.current === -1) unsent.current = prompt;
    place.current = next;
    setDraft({ prompt: next === -1 ? unsent.current : (prompts[next]?.prompt ?? "") });
  }

  const enhance = useMutation({
    mutationFn: () =>
      data(
        api.POST("/api/v1/prompt/enhance", {
          body: { prompt, options: { apply_style: true, apply_cinematic: true } } as never,
        }),
      ),
  });
  const most = Number(model?.limits.max_prompt_chars ?? 2000);
  const ignored = estimate?.prompt_notes ?? [];
  useCommands([
    {
      id: "prompt.older",
      title: "Earlier prompt",
      group: "Create",
      key: "alt+arrowup",
      whileTyping: true,
      run: () => step(1),
    },
    {
      id: "prompt.newer",
      title: "Later prompt",
      group: "Create",
      key: "alt+arrowdown",
      whileTyping: true,
      run: () => step(-1),
    },
    {
      id: "prompt.history",
      title: "Search earlier prompts",
      group: "Create",
      icon: History,
      key: "h",
      run: () => setHistory(true),
    },
  ]);

  return (
    <div className="space-y-2">
      <TextArea
        label="Prompt"
        data-testid="prompt-input"
        rows={4}
        autoFocus
        maxLength={most}
        placeholder="What happens in the clip, as you would tell it"
        value={prompt}
        onChange={(event) => {
          place.current = -1;
          setDraft({ prompt: event.target.value });
        }}
        aside={
          <span data-testid="character-counter" className="text-xs text-soft tabular-nums">
            {prompt.length} / {most}
            {estimate?.prompt_tokens != null && ` · ${estimate.prompt_tokens} of ${estimate.prompt_tokens_read} tokens`}
          </span>
        }
        hint={ignored.length > 0 ? <span className="text-warn">{ignored.join(" ")}</span> : undefined}
      />
      <div className="flex flex-wrap items-center gap-1.5">
        <Button
          size="small"
          icon={WandSparkles}
          data-testid="enhance-prompt-button"
          disabled={prompt.trim() === "" || enhance.isPending}
          onClick={() => enhance.mutate()}
        >
          Suggest words
        </Button>
        <IconButton size="small" icon={History} label="Search earlier prompts" onClick={() => setHistory(true)} />
      </div>
      {enhance.error && <ProblemNote error={enhance.error} />}
      {enhance.data && (
        <Suggestion
          before={enhance.data.original_prompt}
          after={enhance.data.enhanced_prompt}
          onAccept={(text) => {
            setDraft({ prompt: text });
            enhance.reset();
          }}
          onReject={enhance.reset}
        />
      )}
      <details className="group">
        <summary className="text-soft">Negative prompt{negative === null ? "" : " · changed"}</summary>
        <div className="pt-2">
          <TextArea
            label="Negative prompt"
            bare
            rows={2}
            placeholder={String(model?.defaults.negative_prompt || "What the clip shall not show")}
            value={negative ?? ""}
            onChange={(event) => setDraft({ negative_prompt: event.target.value || null })}
            hint={negative === null ? "Empty: the model's own is used." : undefined}
          />
        </div>
      </details>
      <Suspense>{history && <PromptHistory onClose={() => setHistory(false)} />}</Suspense>
    </div>
  );
}

type SuggestionProps = { before: string; after: string; onAccept: (text: string) => void; onReject: () => void };

function Suggestion({ before, after, onAccept, onReject }: SuggestionProps) {
  const pieces = compared(before, after);
  return (
    <section
      aria-label="Suggested prompt"
      className="space-y-2 rounded-lg border border-accent p-2.5"
      aria-live="polite"
    >
      <p>
        {before === after
          ? "It has all of it already: nothing to add."
          : pieces.map((piece, index) => {
              const key = index;
              if (piece.kind === "added")
                return (
                  <ins key={key} className="bg-tint no-underline">
                    {piece.text}
                  </ins>
                );
              if (piece.kind === "removed")
                return (
                  <del key={key} className="text-danger">
                    {piece.text}
                  </del>
                );
              return <span key={key}>{piece.text}</span>;
            })}
      </p>
      <div className="flex gap-1.5">
        {before !== after && (
          <Button
            size="small"
            kind="primary"
            icon={Check}
            data-testid="accept-enhancement-button"
            onClick={() => onAccept(after)}
          >
            Accept
          </Button>
        )}
        <Button size="small" icon={X} onClick={onReject}>
          {before === after ? "Close" : "Reject"}
        </Button>
      </div>
    </section>
  );
}
