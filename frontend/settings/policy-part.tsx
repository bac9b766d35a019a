/** Whether clips are real or mocks, and what happens to a task whose model cannot be used. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { useAllowed, useLacks } from "@/system/session";
import { classes } from "@/ui/classes";
import { Note, Panel, Skeleton } from "@/ui/status";
import { say } from "@/ui/toasts";

type Body = Schemas["PolicyBody"];
type Option<T> = { value: T; label: string; about: string };

const MODES: Option<Schemas["GenerationMode"]>[] = [
  { value: "real", label: "Real clips", about: "A model makes every clip." },
  {
    value: "mock",
    label: "Mock clips",
    about: "For trying clients: every clip is a mock within seconds, and says so in its picture and its record.",
  },
];

const FAILURES: Option<Schemas["OnModelFailure"]>[] = [
  { value: "fail", label: "Fail", about: "The task ends with the reason and the next step." },
  {
    value: "other_model",
    label: "Use another model",
    about: "The nearest installed one that takes the same inputs makes the clip, and the record says so.",
  },
  { value: "mock", label: "Make a mock", about: "The task ends with a clip that says that it is none." },
];

function Choices<T extends string>(props: {
  legend: string;
  value: T;
  options: Option<T>[];
  disabled: boolean;
  onChange: (value: T) => void;
}) {
  return (
    <fieldset className="grid gap-2 md:grid-cols-3" disabled={props.disabled}>
      <legend className="sr-only">{props.legend}</legend>
      {props.options.map((option) => (
        <label
          key={option.value}
          className={classes(
            "flex gap-2.5 rounded-lg border p-3 has-focus-visible:outline-2 has-focus-visible:outline-accent",
            option.value === props.value ? "border-accent bg-tint" : "border-edge",
          )}
        >
          <input
            type="radio"
            className="mt-0.5 size-4 accent-accent"
            name={props.legend}
            checked={option.value === props.value}
            onChange={() => props.onChange(option.value)}
          />
          <span>
            <span className="block font-medium">{option.label}</span>
            <span className="block text-soft">{option.about}</span>
          </span>
        </label>
      ))}
    </fieldset>
  );
}

export function PolicyPart() {
  const cache = useQueryClient();
  const allowed = useAllowed("admin");
  const lacks = useLacks("admin");
  const policy = useQuery({ queryKey: ["policy"], queryFn: () => data(api.GET("/api/v1/generation/policy")) });
  const change = useMutation({
    mutationFn: (body: Body) => data(api.POST("/api/v1/generation/policy", { body })),
    onSuccess: (now) => {
      cache.setQueryData(["policy"], now);
      void cache.invalidateQueries({ queryKey: KEYS.settings });
      say({ title: "Saved. It counts from the next request." });
    },
    onError: (error) => say({ title: asProblem(error).message, urgent: true }),
  });
  if (policy.error) return <ProblemNote error={policy.error} retry={() => void policy.refetch()} />;
  if (!policy.data) return <Skeleton className="h-80" />;
  const { mode, on_model_failure } = policy.data;
  return (
    <div className="space-y-4">
      {lacks && <Note tone="warn">Your key may look at this, not change it.</Note>}
      <Panel title="What makes the clips">
        <Choices
          legend="What makes the clips"
          value={mode}
          options={MODES}
          disabled={!allowed || change.isPending}
          onChange={(value) => change.mutate({ mode: value })}
        />
      </Panel>
      <Panel title="When a model cannot be used">
        <p className="mb-3 text-soft">For requests that say nothing about it themselves.</p>
        <Choices
          legend="When a model cannot be used"
          value={on_model_failure}
          options={FAILURES}
          disabled={!allowed || change.isPending}
          onChange={(value) => change.mutate({ on_model_failure: value })}
        />
      </Panel>
    </div>
  );
}
