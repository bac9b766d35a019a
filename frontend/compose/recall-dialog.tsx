/** Shows what the values of another clip would change in the form, before they do. */

import { useNavigate } from "@tanstack/react-router";
import { useEffect } from "react";
import { type Draft, differences, setDraft, useDraft, useRecalled } from "@/tasks/draft";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { say } from "@/ui/toasts";

const NAMES: Partial<Record<keyof Draft, string>> = {
  negative_prompt: "Negative prompt",
  num_frames: "Frames",
  fps: "Frames a second",
  guidance_scale: "Guidance",
  guidance_scale_2: "Guidance, low noise",
  end_image: "End image",
  image_fit: "Fit of the image",
  loras: "LoRAs",
  crf: "Compression",
  keep_latents: "Keep the latents",
};

function named(field: keyof Draft): string {
  return NAMES[field] ?? (field[0] ?? "").toUpperCase() + field.slice(1).replaceAll("_", " ");
}

export default function RecallDialog() {
  const recalled = useRecalled((now) => now.recalled);
  const draft = useDraft();
  const navigate = useNavigate();
  const changed = recalled ? differences(draft, recalled.changes) : [];
  const close = () => useRecalled.setState({ recalled: null });
  const nothing = recalled !== null && changed.length === 0;
  useEffect(() => {
    if (!nothing) return;
    useRecalled.setState({ recalled: null });
    say({ title: "The form has these settings already" });
    void navigate({ to: "/" });
  }, [nothing, navigate]);
  if (!recalled || nothing) return null;
  function apply() {
    if (!recalled) return;
    const before = useDraft.getState();
    setDraft(recalled.changes);
    close();
    void navigate({ to: "/" });
    say({ title: "Settings applied", action: { label: "Undo", run: () => setDraft(before) } });
  }
  return (
    <Dialog
      open
      onClose={close}
      title="Use these settings"
      description="This is what changes in the form."
      testId="recall-dialog"
      footer={
        <>
          <Button onClick={close}>Cancel</Button>
          <Button kind="primary" onClick={apply} autoFocus>
            Apply
          </Button>
        </>
      }
    >
      {recalled.notes.map((note) => (
        <p key={note} className="mb-1 text-warn">
          {note}
        </p>
      ))}
      <table className="w-full text-left">
        <thead className="text-xs text-soft">
          <tr>
            <th className="py-1 pr-3 font-medium">Setting</th>
            <th className="py-1 pr-3 font-medium">Now</th>
            <th className="py-1 font-medium">Then</th>
          </tr>
        </thead>
        <tbody className="divide-y divide-edge">
          {changed.map(({ field, now, later }) => (
            <tr key={field} className="align-top">
              <th scope="row" className="py-1.5 pr-3 font-normal text-soft">
                {named(field)}
              </th>
              <td className="py-1.5 pr-3 break-words">{now}</td>
              <td className="py-1.5 font-medium break-words">{later}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Dialog>
  );
}
