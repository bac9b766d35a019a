/** The API keys of the server: made with scopes and limits, shown once, revoked at once. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound, Plus } from "lucide-react";
import { useState } from "react";
import { moment } from "@/app/format";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { Button } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { Badge, Empty, Note, Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { KeyDialog } from "./key-dialog";
import { useSession } from "./session-part";

type Key = Schemas["KeyInfo"];

const API_KEYS = ["keys"];

function limits(key: Key): string {
  return [
    key.requests_per_minute != null && `${key.requests_per_minute} requests a minute`,
    key.waiting_tasks != null && `${key.waiting_tasks} unfinished tasks`,
    key.gpu_seconds_per_day != null && `${key.gpu_seconds_per_day} device seconds a day`,
    key.expires_at && `until ${moment(key.expires_at)}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

export function KeysPart() {
  const cache = useQueryClient();
  const { data: session } = useSession();
  const keys = useQuery({ queryKey: API_KEYS, queryFn: () => data(api.GET("/api/v1/keys")) });
  const [making, setMaking] = useState(false);
  const [ending, setEnding] = useState<Key | null>(null);
  const revoke = useMutation({
    mutationFn: (key: Key) => data(api.DELETE("/api/v1/keys/{key_id}", { params: { path: { key_id: key.id } } })),
    onSuccess: ({ name }) => {
      say({ title: `The key ${name} is revoked` });
      setEnding(null);
    },
    onSettled: () => cache.invalidateQueries({ queryKey: API_KEYS }),
  });
  if (keys.error) return <ProblemNote error={keys.error} retry={() => void keys.refetch()} />;
  if (!keys.data || !session) return <Skeleton className="h-80" />;
  const listed = keys.data.keys;
  return (
    <div className="space-y-4">
      {!session.needs_key && (
        <Note>
          This server has no keys: it serves this machine alone, and asks nobody. From the first key on it asks
          everybody, this browser too, also when all keys are revoked.
        </Note>
      )}
      <Panel
        title="Keys of the API"
        aside={
          <Button size="small" kind="primary" icon={Plus} onClick={() => setMaking(true)}>
            Make a key
          </Button>
        }
      >
        {listed.length === 0 && (
          <Empty icon={KeyRound} title="No keys yet">
            One for each person or program: each sees its own tasks and clips alone, and can be ended by itself.
          </Empty>
        )}
        <ul>
          {listed.map((key) => (
            <li
              key={key.id}
              data-testid={`key-${key.name}`}
              className="flex flex-wrap items-center gap-x-3 gap-y-1 border-t border-edge py-2 first:border-t-0"
            >
              <div className="min-w-0 flex-1">
                <p className="flex flex-wrap items-center gap-2 font-medium">
                  {key.name}
                  <Badge tone={key.state === "valid" ? "good" : "plain"}>{key.state}</Badge>
                  {key.id === session.key_id && <Badge tone="accent">This browser</Badge>}
                </p>
                <p className="text-soft">{key.scopes.join(", ")}</p>
                <p className="text-xs text-soft">
                  made {moment(key.created_at)} · {key.last_used_at ? `used ${moment(key.last_used_at)}` : "never used"}
                  {limits(key) && ` · ${limits(key)}`}
                </p>
              </div>
              {key.state === "valid" && (
                <Button size="small" kind="danger" aria-label={`Revoke ${key.name}`} onClick={() => setEnding(key)}>
                  Revoke
                </Button>
              )}
            </li>
          ))}
        </ul>
      </Panel>
      {making && (
        <KeyDialog
          first={!session.needs_key}
          onMade={() => {
            void cache.invalidateQueries({ queryKey: API_KEYS });
            void cache.invalidateQueries({ queryKey: KEYS.session });
          }}
          onClose={() => setMaking(false)}
        />
      )}
      <Confirm
        open={ending !== null}
        title={`Revoke ${ending?.name}?`}
        deed="Revoke it"
        busy={revoke.isPending}
        error={revoke.error}
        onConfirm={() => ending && revoke.mutate(ending)}
        onClose={() => setEnding(null)}
      >
        <p>
          Whoever uses it is refused at once; its sessions, links, sockets and streams end. Its tasks and clips stay,
          and are seen with the scope admin. A revoked key does not come back.
        </p>
        {ending?.id === session.key_id && <Note tone="warn">This browser is logged in with it and is logged out.</Note>}
      </Confirm>
    </div>
  );
}
