/** Where LoRA files are dropped or chosen, and how far each is on its way; problems are said at their file. */

import { Upload as UploadIcon, X } from "lucide-react";
import { type DragEvent, useRef, useState } from "react";
import { bytes } from "@/app/format";
import { ProblemNote } from "@/http/problem-note";
import { Button, IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { ProgressBar } from "@/ui/status";
import { dismiss, type Upload, upload, useUploads } from "./uploads";

const WORDS = {
  waiting: "Waits",
  sending: "Sending",
  checking: "The server checks it",
  done: "Here",
  failed: "Refused",
};

export function UploadZone({ allowed }: { allowed: boolean }) {
  const uploads = useUploads((now) => now.uploads);
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);

  function carriesFiles(event: DragEvent): boolean {
    if (!allowed || !event.dataTransfer.types.includes("Files")) return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  return (
    <div className="space-y-3">
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the button inside does the same by keyboard */}
      <div
        className={classes(
          "flex flex-wrap items-center gap-3 rounded-xl border-2 border-dashed p-4",
          over ? "border-accent bg-tint" : "border-control",
        )}
        data-testid="lora-drop"
        onDragEnter={(event) => carriesFiles(event) && setOver(true)}
        onDragOver={carriesFiles}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          setOver(false);
          if (carriesFiles(event)) upload(event.dataTransfer.files);
        }}
      >
        <Button kind="primary" icon={UploadIcon} disabled={!allowed} onClick={() => input.current?.click()}>
          Add LoRA files
        </Button>
        <p className="min-w-48 flex-1 text-soft">
          Or drop them here: .safetensors, at most 500 MiB each. Of a pair, send both files; they find each other.
        </p>
        <input
          ref={input}
          type="file"
          accept=".safetensors"
          multiple
          className="sr-only"
          tabIndex={-1}
          aria-label="LoRA files"
          data-testid="lora-file"
          onChange={(event) => {
            if (event.target.files) upload([...event.target.files]);
            event.target.value = "";
          }}
        />
      </div>
      {uploads.length > 0 && (
        <ul className="space-y-2" aria-live="polite">
          {uploads.map((one) => (
            <UploadRow key={one.number} one={one} />
          ))}
        </ul>
      )}
    </div>
  );
}

function UploadRow({ one }: { one: Upload }) {
  const ended = one.state === "done" || one.state === "failed";
  const fits = one.result?.compatible_models ?? [];
  return (
    <li className="space-y-1 rounded-lg border border-edge bg-panel p-3" data-testid="upload">
      <div className="flex items-center gap-2">
        <span className="min-w-0 flex-1 truncate font-medium">{one.name}</span>
        <span className="text-soft">
          {one.state === "sending" ? `${bytes(one.sent)} of ${bytes(one.size)}` : WORDS[one.state]}
        </span>
        {ended && (
          <IconButton label={`Dismiss ${one.name}`} icon={X} size="small" onClick={() => dismiss(one.number)} />
        )}
      </div>
      {!ended && (
        <ProgressBar
          value={one.state === "checking" ? null : one.size ? (100 * one.sent) / one.size : 0}
          label={`Upload of ${one.name}`}
        />
      )}
      {one.problem && <ProblemNote error={one.problem} />}
      {one.result && (
        <p className="text-soft">
          {one.result.message}.{" "}
          {fits.length > 0 ? `It fits ${fits.join(", ")}.` : "It fits no model that this server knows."}
        </p>
      )}
    </li>
  );
}
