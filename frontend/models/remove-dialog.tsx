/** Removes a model's files, after what that means: who needs it, and what it frees. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { bytes, counted } from "@/app/format";
import { api, data } from "@/http/client";
import { KEYS } from "@/http/queries";
import { unfinished, useQueue } from "@/tasks/queue";
import { Confirm } from "@/ui/confirm";
import { Note } from "@/ui/status";
import { say } from "@/ui/toasts";
import type { Details, Model } from "./models";

const MIB = 1024 * 1024;

export function RemoveDialog({ model, details, onClose }: { model: Model; details?: Details; onClose: () => void }) {
  const cache = useQueryClient();
  const { data: queue } = useQueue();
  const remove = useMutation({
    mutationFn: () => data(api.DELETE("/api/v1/models/{model_type}", { params: { path: { model_type: model.id } } })),
    onSuccess: ({ message, freed_mb }) => {
      say({ title: message, text: `${bytes(freed_mb * MIB)} are free again.` });
      onClose();
    },
    onSettled: () => {
      void cache.invalidateQueries({ queryKey: KEYS.models });
      void cache.invalidateQueries({ queryKey: KEYS.downloads });
    },
  });
  const tasks = (queue?.tasks ?? []).filter((task) => unfinished(task) && task.model === model.id).length;
  const needed = details?.in_use || tasks > 0;
  const held = details?.loaded_by.length ?? 0;
  return (
    <Confirm
      open
      onClose={onClose}
      title={`Remove ${model.id}?`}
      deed="Remove its files"
      busy={remove.isPending}
      error={remove.error}
      blocked={needed || held > 0}
      onConfirm={() => remove.mutate()}
    >
      <ul className="list-disc space-y-1 pl-5">
        <li>
          {model.size_mb ? `About ${bytes(model.size_mb * MIB)} are deleted` : "Its files are deleted"} in{" "}
          {details?.model_path ?? "its folder"}. Files that other programs share stay with them, and free nothing.
        </li>
        <li>
          {details?.usage_frequency
            ? `${counted(details.usage_frequency, "clip")} made with it stay in the gallery.`
            : "No clip in the gallery was made with it."}
        </li>
        <li>
          {model.repository
            ? `It can be downloaded again from ${model.repository}.`
            : "It has no repository: keep a copy if you want it back."}
        </li>
      </ul>
      {needed && (
        <Note tone="warn">
          {tasks > 0
            ? `${counted(tasks, "task")} in the queue ${tasks === 1 ? "needs" : "need"} it.`
            : "A task needs it."}{" "}
          Cancel {tasks === 1 ? "it" : "them"} first, or wait for the end.
        </Note>
      )}
      {held > 0 && (
        <Note tone="warn">
          {counted(held, "worker")} {held === 1 ? "holds" : "hold"} it in memory.
        </Note>
      )}
    </Confirm>
  );
}
