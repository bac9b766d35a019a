/**
 * Takes files that are dropped anywhere on the page, or pasted: a clip or a still of ours brings its settings back, any
 * other picture becomes the start image.
 */

import { useNavigate } from "@tanstack/react-router";
import { FileDown } from "lucide-react";
import { type ReactNode, useCallback, useEffect, useState } from "react";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { KEYS, queries } from "@/http/queries";
import { recall, setImage } from "@/tasks/draft";
import { storeImage } from "@/tasks/submit";
import { say } from "@/ui/toasts";

function formOf(file: File): FormData {
  const form = new FormData();
  form.append("file", file, file.name);
  return form;
}

/** Reads the settings in a file; throws the server's refusal of what is no clip or picture. */
async function inspect(file: File): Promise<Schemas["FileSettings"]> {
  const form = formOf(file);
  return data(api.POST("/api/v1/outputs/inspect", { body: form as never, bodySerializer: () => form }));
}

async function addToGallery(file: File): Promise<Schemas["ImportedClip"]> {
  const form = formOf(file);
  return data(api.POST("/api/v1/outputs/import", { body: form as never, bodySerializer: () => form }));
}

function failed(error: unknown) {
  const { message, suggestions } = asProblem(error);
  say({ title: message, text: suggestions[0], urgent: true });
}

/** What is done with a file, wherever it comes from. */
function useIncomingFile(): (file: File) => void {
  const navigate = useNavigate();
  return useCallback(
    (file: File) => {
      const show = (clip: string) => void navigate({ to: "/gallery", search: { clip } });

      async function clip() {
        const found = await inspect(file);
        if (found.settings) recall(found.settings, "all", [...found.missing.map((one) => one.message), ...found.notes]);
        const { video_id: known } = found;
        if (known) {
          say({ title: "This clip is in the gallery", action: { label: "Show it", run: () => show(known) } });
        } else {
          const add = () =>
            void addToGallery(file).then(({ video }) => {
              say({ title: "Added to the gallery", action: { label: "Show it", run: () => show(video.id) } });
            }, failed);
          const title = found.settings ? "A clip from elsewhere" : "There are no settings in this clip";
          say({ title, text: found.notes[0], action: { label: "Add it to the gallery", run: add } });
        }
      }

      async function picture() {
        const found = await inspect(file).catch(() => null);
        if (found?.settings) {
          recall(
            found.settings,
            "all",
            found.missing.map((one) => one.message),
          );
          return;
        }
        const stored = await storeImage(file);
        setImage("image", stored);
        await navigate({ to: "/" });
        say({ title: "It is the start image now", text: stored.adjustments[0] });
      }

      async function lora() {
        await navigate({ to: "/loras" });
        const form = formOf(file);
        await data(api.POST("/api/v1/lora/upload", { body: form as never, bodySerializer: () => form }));
        await queries.invalidateQueries({ queryKey: KEYS.loras });
        say({ title: `Added ${file.name}` });
      }

      if (file.type.startsWith("image/")) picture().catch(failed);
      else if (file.name.toLowerCase().endsWith(".safetensors")) lora().catch(failed);
      else clip().catch(failed);
    },
    [navigate],
  );
}

export function DropTarget({ children }: { children: ReactNode }) {
  const [over, setOver] = useState(false);
  const take = useIncomingFile();
  useEffect(() => {
    const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    function drag(event: DragEvent) {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      setOver(true);
    }
    function leave(event: DragEvent) {
      if (event.relatedTarget === null) setOver(false);
    }
    function drop(event: DragEvent) {
      setOver(false);
      // A field that takes files itself has stopped the event.
      const file = event.dataTransfer?.files[0];
      if (!file || event.defaultPrevented) return;
      event.preventDefault();
      take(file);
    }
    function paste(event: ClipboardEvent) {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      take(file);
    }
    const events = { dragover: drag, dragleave: leave, drop, paste } as unknown as Record<string, EventListener>;
    for (const [name, listener] of Object.entries(events)) window.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(events)) window.removeEventListener(name, listener);
    };
  }, [take]);
  return (
    <>
      {children}
      {over && (
        <div
          aria-hidden
          className="pointer-events-none fixed inset-3 z-50 flex flex-col items-center justify-center gap-2 rounded-2xl border-2 border-dashed border-accent bg-panel/90 text-lg font-medium"
        >
          <FileDown className="size-10 text-accent" />
          Drop a clip to get its settings, or a picture to start from
        </div>
      )}
    </>
  );
}
