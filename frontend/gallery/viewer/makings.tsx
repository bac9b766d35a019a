/** Windows that make new clips out of a finished one: variations, a clip that goes on from it, another file of it. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { counted } from "@/app/format";
import { api, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { bodyOf, draftOf } from "@/tasks/draft";
import { useSubmit } from "@/tasks/submit";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { NumberField, SliderField, TextArea } from "@/ui/fields";
import { say } from "@/ui/toasts";
import type { Video } from "../grid/details";

type WindowProps = { video: Video; onClose: () => void };

export function MakingWindow({ kind, ...props }: WindowProps & { kind: "vary" | "extend" | "redecode" }) {
  if (kind === "vary") return <Vary {...props} />;
  return kind === "extend" ? <Extend {...props} /> : <Redecode {...props} />;
}

/** The request that makes these values again with other seeds. */
function variationOf(parameters: Record<string, unknown>, count: number) {
  return bodyOf({ ...draftOf(parameters), seed: null, variations: count }, undefined);
}

function Vary({ video, onClose }: WindowProps) {
  const [count, setCount] = useState(4);
  const submit = useSubmit();
  return (
    <Dialog
      open
      onClose={onClose}
      title="Vary this clip"
      description="The same request with other seeds."
      width="narrow"
      testId="vary-window"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            kind="primary"
            disabled={submit.isPending}
            onClick={() =>
              submit.mutate({ body: variationOf(video.generation_params, count), first: false }, { onSuccess: onClose })
            }
          >
            Queue {counted(count, "variation")}
          </Button>
        </>
      }
    >
      <div className="space-y-3 pb-3">
        {submit.error && <ProblemNote error={submit.error} />}
        <SliderField label="Variations" min={1} max={8} step={1} value={count} onChange={setCount} />
      </div>
    </Dialog>
  );
}

/** Queues a task made from a clip, and tells of it. */
function useMaking<T>(make: (value: T) => Promise<unknown>, title: string, onClose: () => void) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: make,
    onSuccess: () => {
      say({ title });
      void cache.invalidateQueries({ queryKey: KEYS.queue });
      onClose();
    },
  });
}

function Extend({ video, onClose }: WindowProps) {
  const [prompt, setPrompt] = useState(video.prompt);
  const path = { output_id: video.id };
  const extend = useMaking(
    (text: string) =>
      data(
        api.POST("/api/v1/outputs/{output_id}/extend", {
          params: { path },
          body: (text.trim() ? { prompt: text } : {}) as never,
        }),
      ),
    "Queued a clip that goes on from this one",
    onClose,
  );
  return (
    <Dialog
      open
      onClose={onClose}
      title="Go on from this clip"
      description="A new clip starts from its last frame; everything else is as in this one."
      testId="extend-window"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" disabled={extend.isPending} onClick={() => extend.mutate(prompt)}>
            Queue it
          </Button>
        </>
      }
    >
      <div className="space-y-3 pb-3">
        {extend.error && <ProblemNote error={extend.error} />}
        <TextArea
          label="What happens next"
          rows={4}
          value={prompt}
          onChange={(event) => setPrompt(event.target.value)}
        />
      </div>
    </Dialog>
  );
}

function Redecode({ video, onClose }: WindowProps) {
  const [fps, setFps] = useState<number | null>(video.fps);
  const [crf, setCrf] = useState(Number(video.generation_params.crf ?? 17));
  const path = { output_id: video.id };
  const redecode = useMaking(
    () => data(api.POST("/api/v1/outputs/{output_id}/redecode", { params: { path }, body: { fps, crf } })),
    "Queued another file of this clip",
    onClose,
  );
  return (
    <Dialog
      open
      onClose={onClose}
      title="Make another file of this clip"
      description="From its latents, which were kept: the same pictures, without denoising again."
      width="narrow"
      testId="redecode-window"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" disabled={redecode.isPending} onClick={() => redecode.mutate(undefined)}>
            Queue it
          </Button>
        </>
      }
    >
      <div className="space-y-3 pb-3">
        {redecode.error && <ProblemNote error={redecode.error} />}
        <NumberField label="Frames per second" min={1} max={60} value={fps} onChange={setFps} />
        <SliderField
          label="Quality of the file (crf)"
          hint="Less is better and larger; 17 looks like the original."
          min={1}
          max={51}
          step={1}
          value={crf}
          onChange={setCrf}
        />
      </div>
    </Dialog>
  );
}
