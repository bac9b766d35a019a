/** Tells of finished and failed clips: on the page, in the tab's title, by sound and by the system, as far as allowed. */

import { useNavigate } from "@tanstack/react-router";
import { useEffect } from "react";
import { onMessage } from "@/live/socket";
import "@/system/load/alerts";
import { useQueue } from "@/tasks/queue";
import { endedChecks, isCheck, tellWhetherSame } from "@/tasks/replay-check";
import { say } from "@/ui/toasts";
import { usePreferences } from "./preferences";

const TITLE = "wan22";

/** Two soft notes, made by the browser: no file to load. */
export function chime(): void {
  const audio = new AudioContext();
  for (const [place, pitch] of [587.33, 880].entries()) {
    const start = audio.currentTime + place * 0.16;
    const [note, volume] = [audio.createOscillator(), audio.createGain()];
    note.frequency.value = pitch;
    volume.gain.setValueAtTime(0.0001, start);
    volume.gain.exponentialRampToValueAtTime(0.12, start + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0001, start + 0.5);
    note.connect(volume).connect(audio.destination);
    note.start(start);
    note.stop(start + 0.55);
    if (place === 1) note.onended = () => void audio.close();
  }
}

function tell(title: string, text: string) {
  const { sound, notifications } = usePreferences.getState();
  if (sound) chime();
  if (notifications && document.hidden && "Notification" in window && Notification.permission === "granted") {
    new Notification(title, { body: text, tag: "wan22" });
  }
}

export function Announcements() {
  const { data: queue } = useQueue();
  const navigate = useNavigate();
  const running = queue?.tasks.find((task) => task.status === "processing");
  const waiting = queue?.pending_tasks ?? 0;

  useEffect(() => {
    const progress = running && `${Math.floor(running.progress_percent)} %`;
    document.title = [progress, waiting > 0 && `${waiting} waiting`, TITLE].filter(Boolean).join(" · ");
  }, [running, waiting]);

  useEffect(() => {
    for (const [task, clip] of endedChecks(queue?.tasks ?? []))
      void tellWhetherSame(clip, task, () => void navigate({ to: "/compare", search: { a: clip, b: task } }));
  }, [queue, navigate]);

  useEffect(
    () =>
      onMessage((message) => {
        if (message.type === "task_update" && message.data.status === "completed") {
          const clip = message.data.task_id;
          tell("Clip finished", "It is in the gallery.");
          if (isCheck(clip)) return;
          say({
            title: "Clip finished",
            action: { label: "Show it", run: () => void navigate({ to: "/gallery", search: { clip } }) },
          });
        }
        if (message.type === "task_update" && message.data.status === "failed") {
          tell("Clip failed", message.data.message ?? "The queue says why.");
          say({ title: "Clip failed", text: message.data.message, urgent: true });
        }
        if (message.type === "alert" && message.data.severity !== "info") {
          say({ title: message.data.message, urgent: message.data.severity === "critical" });
        }
      }),
    [navigate],
  );
  return null;
}
