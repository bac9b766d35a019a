/** Who uses this page: the session of the browser, and whether it has to be started with a key. */

import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, data, onProblem, type Schemas } from "@/http/client";
import { KEYS, queries } from "@/http/queries";
import { connect } from "@/live/socket";

type Session = {
  session: Schemas["Session"] | undefined;
  /** Whether nothing can be shown before somebody brings a key. */
  needsLogin: boolean;
};

/** Reads the session, and opens the live connection once there is one. */
export function useSession(): Session {
  const [refused, setRefused] = useState(false);
  const { data: session } = useQuery({
    queryKey: KEYS.session,
    queryFn: () => data(api.GET("/api/v1/session")),
    staleTime: 300_000,
  });
  useEffect(
    () =>
      onProblem((problem) => {
        if (problem.status === 401) setRefused(true);
      }),
    [],
  );
  const open = session !== undefined && !refused;
  useEffect(() => (open ? connect(queries) : undefined), [open]);
  return { session, needsLogin: refused };
}

function useScopes() {
  return useQuery<Schemas["Session"]>({ queryKey: KEYS.session, enabled: false }).data?.scopes;
}

/** Whether the key of this session has a scope; everything is allowed on a server without keys. */
export function useAllowed(scope: Schemas["Scope"]): boolean {
  return useScopes()?.includes(scope) ?? false;
}

/** Whether it is known that the key of this session lacks a scope: nothing says so before the session is read. */
export function useLacks(scope: Schemas["Scope"]): boolean {
  return useScopes()?.includes(scope) === false;
}

/** Exchanges a key for a session of this browser, and begins anew with it. */
export async function logIn(key: string): Promise<void> {
  await data(api.POST("/api/v1/session", { headers: { Authorization: `Bearer ${key}` } }));
  location.reload();
}

/** Ends the session of this browser. */
export async function logOut(): Promise<void> {
  await data(api.DELETE("/api/v1/session"));
  location.reload();
}
