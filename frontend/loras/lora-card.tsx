/** One LoRA: what it was made for, its files and experts, its trigger words, what it costs, and how it changes a prompt. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Copy, Trash2 } from "lucide-react";
import { useState } from "react";
import { bytes, counted, moment } from "@/app/format";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { TextField } from "@/ui/fields";
import { Facts } from "@/ui/page";
import { Badge, Note } from "@/ui/status";
import { say } from "@/ui/toasts";

export type Lora = Schemas["LoraInfo"];

const MIB = 1024 * 1024;
const EXPERTS: Record<string, string> = { high: "high-noise expert", low: "low-noise expert", both: "both experts" };

async function copy(text: string) {
  try {
    await navigator.clipboard.writeText(text);
    say({ title: `Copied: ${text}` });
  } catch {
    say({ title: "The browser did not allow it", text: "Select the words and copy them.", urgent: true });
  }
}

export function LoraCard({ lora, allowed }: { lora: Lora; allowed: boolean }) {
  const [removing, setRemoving] = useState(false);
  const preset = Object.entries(lora.preset ?? {});
  return (
    <article
      className="flex flex-col gap-3 rounded-xl border border-edge bg-panel p-4"
      aria-label={lora.title}
      data-testid={`lora-${lora.id}`}
    >
      <header className="flex flex-wrap items-start gap-2">
        <div className="min-w-0 flex-1">
          <h2 className="font-semibold break-words">{lora.title}</h2>
          <p className="text-xs text-soft">
            {lora.id} · {bytes(lora.size_mb * MIB)} · {moment(lora.created_at)}
          </p>
        </div>
        {lora.is_pair && <Badge>Pair</Badge>}
        {lora.embedded && <Badge>Ships with wan22</Badge>}
        {lora.is_applied && <Badge tone="accent">In use, strength {lora.current_strength}</Badge>}
      </header>
      {lora.problem && <Note tone="danger">{lora.problem}</Note>}
      <Facts
        facts={[
          ["Made for", lora.base ?? "Not known"],
          [
            "Fits",
            lora.compatible_models.length > 0 ? lora.compatible_models.join(", ") : "No model that this server knows",
          ],
          [
            "Files",
            <ul key="files">
              {lora.files.map((file) => (
                <li key={file.filename} className="break-words">
                  {file.filename}
                  <span className="block text-xs text-soft">
                    {file.expert ? EXPERTS[file.expert] : "expert not known: used for both"}
                    {file.expert && ` (from the ${file.decided_by})`} · {file.format}
                    {file.ranks.length > 0 && ` · rank ${file.ranks.join(", ")}`} · {counted(file.tensors, "tensor")}
                  </span>
                </li>
              ))}
            </ul>,
          ],
          preset.length > 0
            ? ["Needs", preset.map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value)}`).join(", ")]
            : null,
        ]}
      />
      {lora.trigger_words.length > 0 && (
        <div>
          <h3 className="mb-1 text-soft">Trigger words</h3>
          <div className="flex flex-wrap gap-1.5">
            {lora.trigger_words.map((word) => (
              <Button key={word} size="small" icon={Copy} aria-label={`Copy ${word}`} onClick={() => void copy(word)}>
                {word}
              </Button>
            ))}
          </div>
        </div>
      )}
      <Cost lora={lora} />
      {!lora.embedded && (
        <div className="mt-auto">
          <Button kind="danger" size="small" icon={Trash2} disabled={!allowed} onClick={() => setRemoving(true)}>
            Delete
          </Button>
        </div>
      )}
      {removing && <RemoveLora lora={lora} onClose={() => setRemoving(false)} />}
    </article>
  );
}

/** What it takes of memory, and what it does to a prompt: asked for when somebody opens it. */
function Cost({ lora }: { lora: Lora }) {
  const [open, setOpen] = useState(false);
  const [prompt, setPrompt] = useState("a red circle moving right");
  const path = { path: { lora_id: lora.id } };
  const memory = useQuery({
    queryKey: ["lora-memory", lora.id],
    queryFn: () => data(api.GET("/api/v1/lora/{lora_id}/memory-impact", { params: path })),
    enabled: open,
  });
  const preview = useMutation({
    mutationFn: () =>
      data(api.POST("/api/v1/lora/{lora_id}/preview", { params: path, body: { base_prompt: prompt } as never })),
  });
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary className="font-medium">Memory and prompt</summary>
      {open && (
        <div className="mt-2 space-y-3">
          {memory.error && <ProblemNote error={memory.error} />}
          <p role="status" className="min-h-10 text-soft">
            {memory.data &&
              `${bytes(memory.data.estimated_memory_mb * MIB)} in memory (${memory.data.memory_impact}). ${memory.data.recommendation}`}
          </p>
          <form
            className="flex items-end gap-2"
            onSubmit={(event) => {
              event.preventDefault();
              preview.mutate();
            }}
          >
            <div className="min-w-0 flex-1">
              <TextField label="A prompt" value={prompt} onChange={(event) => setPrompt(event.target.value)} />
            </div>
            <Button type="submit" disabled={prompt.trim() === "" || preview.isPending}>
              Show
            </Button>
          </form>
          {preview.error && <ProblemNote error={preview.error} />}
          {preview.data && (
            <div role="status" data-testid="lora-preview" className="space-y-1">
              <p className="font-medium break-words">{preview.data.enhanced_prompt}</p>
              <p className="text-xs text-soft">{preview.data.preview_note}</p>
            </div>
          )}
        </div>
      )}
    </details>
  );
}

function RemoveLora({ lora, onClose }: { lora: Lora; onClose: () => void }) {
  const cache = useQueryClient();
  const remove = useMutation({
    mutationFn: () => data(api.DELETE("/api/v1/lora/{lora_id}", { params: { path: { lora_id: lora.id } } })),
    onSuccess: ({ message }) => {
      say({ title: message });
      onClose();
    },
    onSettled: () => cache.invalidateQueries({ queryKey: KEYS.loras }),
  });
  return (
    <Confirm
      open
      onClose={onClose}
      title={`Delete ${lora.title}?`}
      deed="Delete it"
      busy={remove.isPending}
      error={remove.error}
      onConfirm={() => remove.mutate()}
    >
      <p>
        {counted(lora.files.length, "file")} and {bytes(lora.size_mb * MIB)} go. Clips that were made with it stay; to
        make them again, it is needed. This cannot be taken back: keep the file.
      </p>
    </Confirm>
  );
}
