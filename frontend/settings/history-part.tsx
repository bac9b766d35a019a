/** The versions of the server's configuration: who changed what, and the way back to each. */

import { useQuery } from "@tanstack/react-query";
import { History, Undo2 } from "lucide-react";
import { moment } from "@/app/format";
import { api, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { useAllowed } from "@/system/session";
import { Button } from "@/ui/button";
import { Badge, Empty, Note, Panel, Skeleton } from "@/ui/status";
import { useUndo } from "./server-part";

export function HistoryPart() {
  const allowed = useAllowed("admin");
  const undo = useUndo();
  const history = useQuery({
    queryKey: [...KEYS.settings, "history"],
    queryFn: () => data(api.GET("/api/v1/config/history")),
  });
  const status = useQuery({
    queryKey: [...KEYS.settings, "status"],
    queryFn: () => data(api.GET("/api/v1/config/configuration-status")),
  });
  if (history.error) return <ProblemNote error={history.error} retry={() => void history.refetch()} />;
  if (!history.data || !status.data) return <Skeleton className="h-80" />;
  const { versions } = history.data;
  const { faults, edited_by_hand } = status.data;
  return (
    <div className="space-y-4">
      {edited_by_hand && (
        <Note>
          config.json was edited by hand since its newest version. That edit becomes a version with the next change.
        </Note>
      )}
      {faults.length > 0 && (
        <Note tone="warn">
          <p className="font-medium">Parts of config.json have no effect</p>
          <ul className="list-disc pl-5">
            {faults.map((fault) => (
              <li key={`${fault.name}-${fault.line}`}>
                {fault.message}
                {fault.line ? ` (line ${fault.line})` : ""}
              </li>
            ))}
          </ul>
        </Note>
      )}
      <Panel
        title="Versions"
        aside={
          <Button
            size="small"
            icon={Undo2}
            disabled={!allowed || versions.length < 2 || undo.isPending}
            onClick={() => undo.mutate(undefined)}
          >
            Take the last change back
          </Button>
        }
      >
        {versions.length === 0 && (
          <Empty icon={History} title="Nothing has been changed yet">
            Every change of a setting becomes a version here, and each can be taken back.
          </Empty>
        )}
        <ol>
          {versions.map((version, place) => (
            <li
              key={version.number}
              className="flex flex-wrap items-center gap-x-3 gap-y-1 border-t border-edge py-2 first:border-t-0"
              data-testid="version"
            >
              <span className="w-8 text-soft">{version.number}</span>
              <div className="min-w-0 flex-1">
                <p className="break-words">
                  {version.restores
                    ? `Back to version ${version.restores}: `
                    : version.changed.length === 0
                      ? "As it was found"
                      : ""}
                  {version.changed.join(", ")}
                </p>
                <p className="text-xs text-soft">
                  {moment(version.at)} · {version.by}
                </p>
              </div>
              {place === 0 ? (
                <Badge tone="accent">In force</Badge>
              ) : (
                <Button size="small" disabled={!allowed || undo.isPending} onClick={() => undo.mutate(version.number)}>
                  Go back to version {version.number}
                </Button>
              )}
            </li>
          ))}
        </ol>
      </Panel>
    </div>
  );
}
