/** Changes the request of a waiting or paused task; the server checks it as it checks a new one. */

import { useState } from "react";
import { ProblemNote } from "@/http/problem-note";
import type { Task } from "@/live/reducer";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { NumberField, TextArea, TextField } from "@/ui/fields";
import { useTaskDeeds } from "./queue";

export function TaskEditor({ task, onClose }: { task: Task; onClose: () => void }) {
  const { edit } = useTaskDeeds();
  const [prompt, setPrompt] = useState(task.prompt);
  const [resolution, setResolution] = useState(task.resolution);
  const [frames, setFrames] = useState<number | null>(task.num_frames);
  const [steps, setSteps] = useState<number | null>(task.steps);
  const [seed, setSeed] = useState<number | null>(task.seed);
  const asked = { prompt, resolution, num_frames: frames, steps, seed };
  const now = {
    prompt: task.prompt,
    resolution: task.resolution,
    num_frames: task.num_frames,
    steps: task.steps,
    seed: task.seed,
  };
  const changes = Object.fromEntries(
    Object.entries(asked).filter(([name, value]) => value !== null && value !== now[name as keyof typeof now]),
  );
  return (
    <Dialog
      open
      onClose={onClose}
      title="Edit before it starts"
      testId="task-editor"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            kind="primary"
            disabled={Object.keys(changes).length === 0 || edit.isPending}
            onClick={() => edit.mutate({ task, changes }, { onSuccess: onClose })}
          >
            Save changes
          </Button>
        </>
      }
    >
      <div className="space-y-3 pb-2">
        {edit.error && <ProblemNote error={edit.error} />}
        <TextArea label="Prompt" rows={4} value={prompt} onChange={(event) => setPrompt(event.target.value)} />
        <div className="grid grid-cols-2 gap-3">
          <TextField label="Size" value={resolution} onChange={(event) => setResolution(event.target.value)} />
          <NumberField label="Frames" min={1} step={4} value={frames} onChange={setFrames} hint="1, 5, 9, …" />
          <NumberField label="Steps" min={1} value={steps} onChange={setSteps} />
          <NumberField label="Seed" min={0} value={seed} onChange={setSeed} />
        </div>
      </div>
    </Dialog>
  );
}
