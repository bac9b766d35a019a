/** Checks the files of a model: quickly by sizes and headers, or byte by byte, with what was found and its repair. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { ShieldCheck, Wrench } from "lucide-react";
import { counted } from "@/app/format";
import { api, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Note, ProgressBar } from "@/ui/status";
import { say } from "@/ui/toasts";
import type { Model } from "./models";

const CHECKS: Record<string, string> = {
  contents: "every byte was read",
  sizes: "sizes and headers were compared",
  nothing: "nothing could be compared",
};

export function VerifyDialog({ model, onClose }: { model: Model; onClose: () => void }) {
  const cache = useQueryClient();
  const check = useMutation({
    mutationFn: (full: boolean) =>
      data(
        api.POST("/api/v1/models/verify/{model_type}", {
          params: { path: { model_type: model.id }, query: { full } },
        }),
      ),
    onSettled: () => cache.invalidateQueries({ queryKey: KEYS.models }),
  });
  const found = check.data;
  const repair = useMutation({
    mutationFn: (files: string[]) =>
      data(
        api.POST("/api/v1/models/repair/{model_type}", {
          params: { path: { model_type: model.id } },
          body: { files },
        }),
      ),
    onSuccess: ({ put_aside }) => {
      say({ title: `${model.id} is being repaired`, text: `${counted(put_aside.length, "damaged file")} put aside.` });
      onClose();
    },
    onSettled: () => {
      void cache.invalidateQueries({ queryKey: KEYS.models });
      void cache.invalidateQueries({ queryKey: KEYS.downloads });
    },
  });
  const size = model.size_mb ? ` (${Math.round(model.size_mb).toLocaleString()} MiB)` : "";
  return (
    <Dialog
      open
      onClose={onClose}
      title={`Verify ${model.id}`}
      description="Compares the files with what was downloaded, without asking anybody."
      testId="verify-dialog"
      footer={
        <>
          <Button icon={ShieldCheck} disabled={check.isPending} onClick={() => check.mutate(false)}>
            Quick check
          </Button>
          <Button icon={ShieldCheck} disabled={check.isPending} onClick={() => check.mutate(true)}>
            Full check
          </Button>
        </>
      }
    >
      <div className="space-y-3">
        <p className="text-soft">
          The quick check looks at names, sizes and headers and takes a moment. The full check reads every byte{size}{" "}
          and compares its SHA-256.
        </p>
        {check.isPending && (
          <div role="status" className="space-y-1">
            <p>{check.variables ? "Reading every byte" : "Comparing sizes"}</p>
            <ProgressBar value={null} label={`Verifying ${model.id}`} />
          </div>
        )}
        {check.error && <ProblemNote error={check.error} />}
        {repair.error && <ProblemNote error={repair.error} />}
        {found && !check.isPending && (
          <div role="status" data-testid="verify-result" className="space-y-2">
            <Note tone={found.is_valid ? "good" : found.integrity_status === "unknown" ? "warn" : "danger"}>
              <p className="font-medium">{found.message}</p>
              <p className="text-ink">
                {counted(found.files_checked, "file")}; {CHECKS[found.checked] ?? found.checked}.
              </p>
            </Note>
            {found.details.length > 0 && (
              <ul className="max-h-48 space-y-1 overflow-y-auto">
                {found.details.map((one) => (
                  <li key={one.name} className="flex justify-between gap-2">
                    <span className="min-w-0 break-all">{one.name}</span>
                    <span className="text-danger">{one.state}</span>
                  </li>
                ))}
              </ul>
            )}
            {!found.is_valid && model.repository && (
              <Button
                kind="primary"
                icon={Wrench}
                disabled={repair.isPending}
                onClick={() => repair.mutate(found.details.map((one) => one.name))}
              >
                Repair: download what is wrong
              </Button>
            )}
          </div>
        )}
      </div>
    </Dialog>
  );
}
