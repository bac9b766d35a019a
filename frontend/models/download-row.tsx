/** One download: how far it is, how fast, the pause after a failure, and what can be done with it. */

import { Pause, Play, X } from "lucide-react";
import { useEffect, useState } from "react";
import { bytes, duration } from "@/app/format";
import { Button, IconButton } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { SelectField } from "@/ui/fields";
import { ProgressBar } from "@/ui/status";
import { type Download, retryInWords, stateInWords, type Urgency, useDownloadDeeds } from "./models";

const MB = 1_000_000;
const PRIORITIES: { value: Urgency; label: string }[] = [
  { value: "critical", label: "Before all others" },
  { value: "high", label: "High" },
  { value: "medium", label: "Normal" },
  { value: "low", label: "Low" },
];

/** The time, each second while somebody needs it. */
function useClock(wanted: boolean): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!wanted) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [wanted]);
  return now;
}

/** How much has come of how much, how fast, and how long the rest takes. */
function amounts(download: Download): string {
  const { downloaded_mb: done, total_mb: total, speed_mbps: speed, eta_seconds: left } = download;
  return [
    done != null && total != null ? `${bytes(done * MB)} of ${bytes(total * MB)}` : stateInWords(download.status).label,
    speed != null && `${bytes(speed * MB)}/s`,
    left != null && `${duration(left)} left`,
  ]
    .filter(Boolean)
    .join(" · ");
}

export function DownloadRow({ download, allowed }: { download: Download; allowed: boolean }) {
  const { start, manage } = useDownloadDeeds();
  const [cancelling, setCancelling] = useState(false);
  const id = download.model_id;
  const now = useClock(Boolean(download.retry));
  const retry = retryInWords(download, now);
  const busy = manage.isPending || start.isPending;
  const running = ["queued", "downloading", "verifying"].includes(download.status);
  return (
    <div className="space-y-2 rounded-lg bg-raised p-3" data-testid={`download-${id}`}>
      <ProgressBar
        value={download.progress ?? (running ? null : 0)}
        label={`Download of ${id}`}
        testId={`download-progress-${id}`}
      />
      <p className="text-xs" data-testid="download-amounts">
        {download.progress != null && <span className="font-medium">{download.progress.toFixed(1)} % · </span>}
        {amounts(download)}
      </p>
      {retry && (
        <p role="status" className="text-xs text-warn" data-testid="download-retry">
          {retry}
        </p>
      )}
      {download.error && (
        <p role="alert" className="text-xs text-danger">
          {download.error} {(download.suggestions ?? []).join(" ")}
        </p>
      )}
      <div className="flex flex-wrap items-end gap-2">
        {download.can_pause && (
          <Button
            size="small"
            icon={Pause}
            disabled={!allowed || busy}
            onClick={() => manage.mutate({ model_id: id, action: "pause" })}
          >
            Pause
          </Button>
        )}
        {download.can_resume && (
          <Button
            size="small"
            kind="primary"
            icon={Play}
            disabled={!allowed || busy}
            onClick={() => manage.mutate({ model_id: id, action: "resume" })}
          >
            Resume
          </Button>
        )}
        {running && (
          <div className="w-40">
            <SelectField<Urgency>
              label={`Priority of ${id}`}
              bare
              disabled={!allowed || busy}
              value={download.priority as Urgency}
              choices={PRIORITIES}
              onChange={(priority) => manage.mutate({ model_id: id, action: "priority", priority })}
            />
          </div>
        )}
        {download.can_cancel && (
          <IconButton
            label={`Cancel the download of ${id}`}
            icon={X}
            size="small"
            disabled={!allowed || busy}
            onClick={() => setCancelling(true)}
          />
        )}
      </div>
      <Confirm
        open={cancelling}
        onClose={() => setCancelling(false)}
        title={`Cancel the download of ${id}?`}
        deed="Cancel it and discard its bytes"
        busy={busy}
        onConfirm={() => manage.mutate({ model_id: id, action: "cancel" }, { onSuccess: () => setCancelling(false) })}
      >
        <p>
          {download.downloaded_mb != null && download.downloaded_mb > 0
            ? `${bytes(download.downloaded_mb * MB)} that have come are deleted.`
            : "Nothing has come yet."}{" "}
          A paused download keeps its bytes.
        </p>
      </Confirm>
    </div>
  );
}
