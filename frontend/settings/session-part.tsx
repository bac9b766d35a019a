/** Who this browser is for the server: its key, what it may do, what it has used today. */

import { useMutation, useQuery } from "@tanstack/react-query";
import { LogOut } from "lucide-react";
import { duration } from "@/app/format";
import { api, asProblem, data } from "@/http/client";
import { KEYS } from "@/http/queries";
import { logOut } from "@/system/session";
import { Button } from "@/ui/button";
import { Facts } from "@/ui/page";
import { Badge, Panel, ProgressBar, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";

/** The session as the server sees it now. */
export const useSession = () =>
  useQuery({ queryKey: KEYS.session, queryFn: () => data(api.GET("/api/v1/session")), staleTime: 300_000 });

export function SessionPart() {
  const { data: session } = useSession();
  const leave = useMutation({
    mutationFn: logOut,
    onError: (error) => say({ title: asProblem(error).message, urgent: true }),
  });
  if (!session) return <Skeleton className="h-48" />;
  const { gpu_seconds_today: used, gpu_seconds_per_day: most } = session;
  return (
    <Panel
      title="This session"
      aside={
        session.needs_key && (
          <Button size="small" icon={LogOut} disabled={leave.isPending} onClick={() => leave.mutate()}>
            Log out
          </Button>
        )
      }
    >
      <div className="max-w-xl space-y-3">
        <Facts
          facts={[
            ["Name", session.needs_key ? session.name : "Anybody on this machine: the server asks for no key"],
            [
              "May",
              <span key="scopes" className="flex flex-wrap gap-1">
                {session.scopes.map((scope) => (
                  <Badge key={scope}>{scope}</Badge>
                ))}
              </span>,
            ],
            [
              "Unfinished tasks",
              `${session.unfinished_tasks ?? 0}${session.waiting_tasks ? ` of ${session.waiting_tasks}` : ""}`,
            ],
            [
              "Device today",
              used == null
                ? "Counted for stored keys alone"
                : `${duration(used)}${most ? ` of ${duration(most)}` : ""}`,
            ],
            session.requests_per_minute ? ["Requests", `${session.requests_per_minute} a minute`] : null,
          ]}
        />
        {used != null && most != null && (
          <ProgressBar value={Math.min(100, (100 * used) / most)} label="Device seconds used today" />
        )}
      </div>
    </Panel>
  );
}
