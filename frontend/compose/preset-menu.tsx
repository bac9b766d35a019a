/** Requests under a name, kept by the server: apply one, or keep what the form holds. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { BookMarked, Eraser, Save } from "lucide-react";
import { type FormEvent, useState } from "react";
import { api, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { type Body, EMPTY, recall, setDraft, useDraft } from "@/tasks/draft";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { TextField } from "@/ui/fields";
import { ActionMenu, type Entry } from "@/ui/menu";
import { say } from "@/ui/toasts";

const KEY = ["presets"];

export default function PresetMenu({ body }: { body: Body }) {
  const [saving, setSaving] = useState(false);
  const { data: list } = useQuery({ queryKey: KEY, queryFn: () => data(api.GET("/api/v1/presets")) });
  const entries: Entry[] = [
    ...(list?.presets ?? []).map((preset) => ({
      label: preset.name,
      icon: BookMarked,
      run: () => recall(preset.request),
    })),
    ...(list?.presets.length ? (["line"] as Entry[]) : []),
    { label: "Keep this form as a preset", icon: Save, run: () => setSaving(true) },
    {
      label: "Empty the form",
      icon: Eraser,
      run: () => {
        const before = useDraft.getState();
        setDraft(EMPTY);
        say({ title: "The form is empty", action: { label: "Undo", run: () => setDraft(before) } });
      },
    },
  ];
  return (
    <>
      <ActionMenu
        trigger={
          <Button size="small" kind="quiet" icon={BookMarked}>
            Presets
          </Button>
        }
        entries={entries}
      />
      {saving && <SaveDialog body={body} onClose={() => setSaving(false)} />}
    </>
  );
}

function SaveDialog({ body, onClose }: { body: Body; onClose: () => void }) {
  const [name, setName] = useState("");
  const cache = useQueryClient();
  const save = useMutation({
    mutationFn: () => data(api.POST("/api/v1/presets", { body: { name: name.trim(), request: body } })),
    onSuccess: () => {
      void cache.invalidateQueries({ queryKey: KEY });
      say({ title: `Kept as ${name.trim()}` });
      onClose();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    save.mutate();
  };
  return (
    <Dialog open onClose={onClose} title="Keep this form as a preset" width="narrow">
      <form onSubmit={submit} className="space-y-3 pb-3">
        {save.error && <ProblemNote error={save.error} />}
        <TextField label="Name" autoFocus required value={name} onChange={(event) => setName(event.target.value)} />
        <div className="flex justify-end">
          <Button type="submit" kind="primary" disabled={name.trim() === "" || save.isPending}>
            Keep
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
