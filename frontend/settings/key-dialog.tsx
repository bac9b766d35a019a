/** Makes a key: its name, what it may, how long and how much. The key itself is shown once. */

import { useMutation } from "@tanstack/react-query";
import { Copy } from "lucide-react";
import { useState } from "react";
import { api, data, type Schemas } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { NumberField, TextField, Toggle } from "@/ui/fields";
import { Note } from "@/ui/status";
import { say } from "@/ui/toasts";

type Scope = Schemas["Scope"];
type Limits = Pick<
  Schemas["KeyBody"],
  "expires_in_days" | "requests_per_minute" | "waiting_tasks" | "gpu_seconds_per_day"
>;

const SCOPES: { value: Scope; about: string }[] = [
  { value: "read", about: "Look at its own things, the models and the state of the server." },
  { value: "generate", about: "Queue, change and cancel tasks, upload images, delete its clips." },
  { value: "models", about: "Download, check and delete models; upload and delete LoRAs." },
  { value: "admin", about: "Everything: settings, workers, the whole queue, keys. Sees the things of all keys." },
];

const LIMITS: { name: keyof Limits; label: string }[] = [
  { name: "expires_in_days", label: "Ends after, days" },
  { name: "requests_per_minute", label: "Requests a minute" },
  { name: "waiting_tasks", label: "Unfinished tasks" },
  { name: "gpu_seconds_per_day", label: "Device seconds a day" },
];

type DialogProps = {
  /** Whether the server has no key yet: from this one on it asks everybody. */
  first: boolean;
  onMade: () => void;
  onClose: () => void;
};

export function KeyDialog({ first, onMade, onClose }: DialogProps) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(first ? ["admin"] : ["generate"]);
  const [limits, setLimits] = useState<Limits>({});
  const make = useMutation({
    mutationFn: async () => {
      const made = await data(api.POST("/api/v1/keys", { body: { name: name.trim(), scopes, ...limits } }));
      // From the first key on the server asks this browser too: it goes on with the key that it has just made.
      if (first) await data(api.POST("/api/v1/session", { headers: { Authorization: `Bearer ${made.key}` } }));
      return made;
    },
    onSuccess: onMade,
  });
  if (make.data) return <KeyShown name={make.data.name} text={make.data.key} onClose={onClose} />;
  const locksOut = first && !scopes.includes("admin");
  return (
    <Dialog
      open
      onClose={onClose}
      title="Make a key"
      testId="key-dialog"
      footer={
        <>
          <Button onClick={onClose}>Not now</Button>
          <Button
            kind="primary"
            disabled={name.trim() === "" || scopes.length === 0 || locksOut || make.isPending}
            onClick={() => make.mutate()}
          >
            Make it
          </Button>
        </>
      }
    >
      <div className="space-y-4">
        {make.error && <ProblemNote error={make.error} />}
        {first && (
          <Note tone="warn">
            This is the first key. From now on the server asks everybody for one; this browser is logged in with it. It
            needs the scope admin, or nobody could make the next one here.
          </Note>
        )}
        <TextField
          label="Name"
          hint="Of the person or the program that uses it."
          autoFocus
          maxLength={100}
          value={name}
          onChange={(event) => setName(event.target.value)}
        />
        <fieldset className="space-y-2">
          <legend className="font-medium">What it may do</legend>
          {SCOPES.map(({ value, about }) => (
            <Toggle
              key={value}
              label={value}
              hint={about}
              checked={scopes.includes(value)}
              onChange={(on) => setScopes((now) => (on ? [...now, value] : now.filter((one) => one !== value)))}
            />
          ))}
        </fieldset>
        <fieldset>
          <legend className="font-medium">Limits</legend>
          <p className="mb-2 text-xs text-soft">Empty is no limit.</p>
          <div className="grid grid-cols-2 gap-3">
            {LIMITS.map((limit) => (
              <NumberField
                key={limit.name}
                label={limit.label}
                min={1}
                value={limits[limit.name] ?? null}
                onChange={(value) => setLimits((now) => ({ ...now, [limit.name]: value }))}
              />
            ))}
          </div>
        </fieldset>
      </div>
    </Dialog>
  );
}

function KeyShown({ name, text, onClose }: { name: string; text: string; onClose: () => void }) {
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      say({ title: "Copied" });
    } catch {
      say({ title: "The browser did not allow it: select the key and copy it", urgent: true });
    }
  }
  return (
    <Dialog
      open
      onClose={onClose}
      title={`The key ${name}`}
      description="Keep it now: the server stores its digest alone, and it is not shown again."
      testId="key-shown"
      footer={
        <Button kind="primary" onClick={onClose}>
          I have kept it
        </Button>
      }
    >
      <div className="flex items-end gap-2">
        <div className="min-w-0 flex-1">
          <TextField
            label="Key"
            readOnly
            value={text}
            className="font-mono"
            onFocus={(event) => event.target.select()}
            data-testid="key-text"
          />
        </div>
        <Button icon={Copy} onClick={() => void copy()}>
          Copy
        </Button>
      </div>
      <p className="mt-2 text-soft">
        Programs send it as Authorization: Bearer KEY, browsers exchange it for a session at the login.
      </p>
    </Dialog>
  );
}
