/** Every setting of the server, from its own description: searched, edited, and saved all or none. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Save, Search } from "lucide-react";
import { useState } from "react";
import { useCommands } from "@/app/commands";
import { counted } from "@/app/format";
import { api, asProblem, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { useAllowed, useLacks } from "@/system/session";
import { Button } from "@/ui/button";
import { TextField } from "@/ui/fields";
import { Empty, Note, Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";
import { SettingField } from "./setting-field";
import { changes, type Draft, found, sectionOf } from "./settings";

const useSettings = () => useQuery({ queryKey: KEYS.settings, queryFn: () => data(api.GET("/api/v1/config")) });

/** Takes back the newest version of config.json, or goes to a numbered one. */
export function useUndo() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (version?: number) => data(api.POST("/api/v1/config/undo", { body: { version } })),
    onSuccess: ({ message, changed }) => say({ title: message, text: changed.join(", ") }),
    onError: (error) => say({ title: asProblem(error).message, text: asProblem(error).suggestions[0], urgent: true }),
    onSettled: () => {
      for (const key of [KEYS.settings, KEYS.fits, ["policy"]]) void cache.invalidateQueries({ queryKey: key });
    },
  });
}

export function ServerPart() {
  const { data: answer, error, refetch } = useSettings();
  const cache = useQueryClient();
  const allowed = useAllowed("admin");
  const lacks = useLacks("admin");
  const undo = useUndo();
  const [draft, setDraft] = useState<Draft>({});
  const [search, setSearch] = useState("");
  const settings = answer?.settings ?? [];
  const body = changes(settings, draft);
  const count = Object.keys(body).length;

  const save = useMutation({
    mutationFn: (wanted: Record<string, unknown>) => data(api.PATCH("/api/v1/config", { body: wanted as never })),
    onSuccess: async ({ changed, at_next_start }) => {
      await cache.invalidateQueries({ queryKey: KEYS.settings });
      setDraft({});
      void cache.invalidateQueries({ queryKey: KEYS.fits });
      say({
        title: `${counted(changed.length, "setting")} changed`,
        text: at_next_start.length > 0 ? `From the next start of the server: ${at_next_start.join(", ")}` : undefined,
        action: { label: "Undo", run: () => undo.mutate(undefined) },
      });
    },
  });
  useCommands([
    {
      id: "settings.save",
      title: "Save the settings",
      group: "Settings",
      icon: Save,
      key: "mod+s",
      enabled: allowed && count > 0,
      run: () => save.mutate(body),
    },
  ]);

  const problem = save.error ? asProblem(save.error) : null;
  const details = (problem?.details ?? {}) as { field?: string; nearest?: unknown };
  const refused = details.field !== undefined && details.field in body ? details.field : undefined;
  if (error && !answer) return <ProblemNote error={error} retry={() => void refetch()} />;
  if (!answer) {
    return (
      <div className="space-y-4">
        <Skeleton className="h-10 max-w-sm" />
        <Skeleton className="h-96" />
        <Skeleton className="h-96" />
      </div>
    );
  }
  const shown = found(settings, search);
  const sections = [...new Set(shown.map((one) => sectionOf(one.name)))];
  return (
    <form
      className="space-y-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (count > 0) save.mutate(body);
      }}
    >
      {lacks && <Note tone="warn">Your key may look at settings, not change them.</Note>}
      <div className="max-w-sm">
        <TextField
          label="Search settings"
          bare
          type="search"
          placeholder="Search by name or meaning"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
      </div>
      {shown.length === 0 && <Empty icon={Search} title="No setting has these words" />}
      {sections.map((section) => (
        <Panel key={section} title={section}>
          <fieldset disabled={!allowed}>
            <legend className="sr-only">{section}</legend>
            {shown
              .filter((one) => sectionOf(one.name) === section)
              .map((one) => (
                <SettingField
                  key={one.name}
                  setting={one}
                  text={draft[one.name]}
                  error={refused === one.name ? problem?.message : undefined}
                  nearest={refused === one.name ? details.nearest : undefined}
                  onChange={(text) => {
                    save.reset();
                    setDraft((now) => ({ ...now, [one.name]: text }));
                  }}
                />
              ))}
          </fieldset>
        </Panel>
      ))}
      {count > 0 && (
        <div
          className="sticky bottom-2 z-10 space-y-2 rounded-xl border border-accent bg-panel p-3 shadow-lg"
          data-testid="save-bar"
        >
          {problem && <ProblemNote error={problem} />}
          <div className="flex flex-wrap items-center gap-2">
            <p role="status" className="flex-1">
              {counted(count, "setting")} changed and not saved. All are saved, or none.
            </p>
            <Button
              onClick={() => {
                save.reset();
                setDraft({});
              }}
            >
              Discard
            </Button>
            <Button type="submit" kind="primary" icon={Save} disabled={save.isPending || !allowed}>
              Save
            </Button>
          </div>
        </div>
      )}
    </form>
  );
}
