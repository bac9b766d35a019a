/** The start and the end image: dropped, pasted, chosen from a file, or taken from the gallery. */

import { useMutation } from "@tanstack/react-query";
import { ArrowLeftRight, ImagePlus, X } from "lucide-react";
import { type DragEvent, useId, useState } from "react";
import { place } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { type Model, type Slot, setDraft, setImage, useDraft } from "@/tasks/draft";
import { storeImage } from "@/tasks/submit";
import { IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { Segments } from "@/ui/segments";
import { say } from "@/ui/toasts";

const TYPES = "image/jpeg,image/png,image/webp,image/avif,image/heic,image/bmp,image/tiff";

export function ImageSlots({ model }: { model: Model | undefined }) {
  const image = useDraft((draft) => draft.image);
  const end = useDraft((draft) => draft.end_image);
  const fit = useDraft((draft) => draft.image_fit);
  const automatic = useDraft((draft) => draft.model === "auto");
  const takes = automatic || model?.limits.takes_image === true;
  const takesEnd = automatic || model?.limits.takes_end_image === true;
  if (!takes && !image && !end) return null;
  return (
    <fieldset className="space-y-2">
      <legend className="mb-1 font-medium">
        Images
        {model?.limits.requires_image === true && !automatic ? (
          ""
        ) : (
          <span className="font-normal text-soft"> · optional</span>
        )}
      </legend>
      <div className="flex items-center gap-1">
        <ImageSlot slot="image" name="Start" useless={!takes} />
        <IconButton
          size="small"
          icon={ArrowLeftRight}
          label="Swap start and end"
          disabled={!image && !end}
          onClick={() => setDraft({ image: end, end_image: image })}
        />
        <ImageSlot slot="end_image" name="End" useless={!takesEnd} />
      </div>
      {image && (
        <Segments
          label="How an image of another shape is fitted"
          value={fit}
          onChange={(image_fit) => setDraft({ image_fit })}
          choices={[
            { value: "crop", label: "Crop" },
            { value: "pad", label: "Pad" },
            { value: "stretch", label: "Stretch" },
          ]}
        />
      )}
    </fieldset>
  );
}

function ImageSlot({ slot, name, useless }: { slot: Slot; name: string; useless: boolean }) {
  const image = useDraft((draft) => draft[slot]);
  const [over, setOver] = useState(false);
  const id = useId();
  const upload = useMutation({
    mutationFn: storeImage,
    onSuccess: (stored) => {
      setImage(slot, stored);
      if (stored.adjustments.length > 0) say({ title: "The image was adjusted", text: stored.adjustments.join(" ") });
    },
  });
  const take = (file: File | undefined) => file?.type.startsWith("image/") && upload.mutate(file);

  function drop(event: DragEvent) {
    setOver(false);
    const file = event.dataTransfer.files[0];
    if (!file?.type.startsWith("image/")) return;
    event.preventDefault();
    take(file);
  }

  return (
    <div className="min-w-0 flex-1 space-y-1">
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the input inside does the same for keyboards */}
      <div
        data-testid={`${slot}-slot`}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
        className={classes(
          "relative flex h-24 items-center justify-center overflow-hidden rounded-lg border border-dashed border-control has-focus-visible:outline-2 has-focus-visible:outline-accent",
          over && "border-accent bg-tint",
        )}
      >
        {image ? (
          <>
            <img src={place(image.url)} alt={`${name} of the clip`} className="size-full object-contain" />
            <IconButton
              size="small"
              icon={X}
              label={`Remove the ${name.toLowerCase()} image`}
              className="absolute top-1 right-1 bg-panel"
              onClick={() => setImage(slot, null)}
            />
          </>
        ) : (
          <label
            htmlFor={id}
            className="flex size-full cursor-pointer flex-col items-center justify-center gap-1 text-xs text-soft"
          >
            <ImagePlus aria-hidden className="size-5" />
            {upload.isPending ? "Sending" : `${name} image`}
          </label>
        )}
        <input
          id={id}
          type="file"
          accept={TYPES}
          aria-label={`${name} image`}
          className="sr-only"
          onChange={(event) => {
            take(event.target.files?.[0]);
            event.target.value = "";
          }}
        />
      </div>
      {upload.error && <ProblemNote error={upload.error} />}
      {image && useless && <p className="text-xs text-warn">This model takes no {name.toLowerCase()} image.</p>}
    </div>
  );
}
