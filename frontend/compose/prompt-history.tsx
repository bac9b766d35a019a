/** The prompts of earlier clips, kept by the server: search, reuse, keep as a favourite, forget. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Heart, History, Trash2 } from "lucide-react";
import { useState } from "react";
import { counted, moment } from "@/app/format";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { setDraft } from "@/tasks/draft";
import { IconButton } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { TextField } from "@/ui/fields";
import { Empty } from "@/ui/status";

type Prompt = Schemas["PromptInfo"];

export default function PromptHistory({ onClose }: { onClose: () => void }) {
  const [search, setSearch] = useState("");
  const cache = useQueryClient();
  const query = { limit: 100, ...(search ? { search } : {}) };
  const { data: found, error } = useQuery({
    queryKey: ["prompts", "search", search],
    queryFn: () => data(api.GET("/api/v1/prompts/history", { params: { query } })),
    placeholderData: (before) => before,
  });
  const settled = { onSettled: () => cache.invalidateQueries({ queryKey: ["prompts"] }) };
  const mark = useMutation({
    ...settled,
    mutationFn: ({ id, favourite }: Prompt) =>
      data(
        api.PATCH("/api/v1/prompts/history/{prompt_id}", {
          params: { path: { prompt_id: id } },
          body: { favourite: !favourite },
        }),
      ),
  });
  const forget = useMutation({
    ...settled,
    mutationFn: ({ id }: Prompt) =>
      data(api.DELETE("/api/v1/prompts/history/{prompt_id}", { params: { path: { prompt_id: id } } })),
  });
  return (
    <Dialog open onClose={onClose} title="Earlier prompts" testId="prompt-history">
      <TextField
        label="Search"
        bare
        autoFocus
        placeholder="Search"
        value={search}
        onChange={(event) => setSearch(event.target.value)}
      />
      {error && <ProblemNote error={error} />}
      {found?.prompts.length === 0 && (
        <Empty icon={History} title="No prompt here">
          Prompts of submitted clips are kept by the server.
        </Empty>
      )}
      <ul className="mt-2 divide-y divide-edge">
        {found?.prompts.map((one) => (
          <li key={one.id} className="flex items-start gap-1 py-1.5">
            <button
              type="button"
              className="min-w-0 flex-1 rounded px-1 text-left hover:bg-raised"
              onClick={() => {
                setDraft({ prompt: one.prompt, negative_prompt: one.negative_prompt || null });
                onClose();
              }}
            >
              <span className="line-clamp-3">{one.prompt}</span>
              <span className="text-xs text-soft">
                {counted(one.uses, "use")} · {moment(one.last_used)}
              </span>
            </button>
            <IconButton
              size="small"
              icon={Heart}
              pressed={one.favourite}
              label={one.favourite ? "No longer a favourite" : "Keep as a favourite"}
              onClick={() => mark.mutate(one)}
            />
            <IconButton size="small" icon={Trash2} label="Forget this prompt" onClick={() => forget.mutate(one)} />
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
