/** Asks for the key of a server that has keys. The key is exchanged for a cookie and is not stored in the page. */

import { KeyRound } from "lucide-react";
import { type FormEvent, useState } from "react";
import { asProblem } from "@/http/client";
import { Button } from "@/ui/button";
import { TextField } from "@/ui/fields";
import { logIn } from "./session";

export function LoginPage() {
  const [key, setKey] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      await logIn(key.trim());
    } catch (error) {
      const { status, message } = asProblem(error);
      setProblem(status === 401 ? "The server does not know this key." : message);
      setBusy(false);
    }
  }

  return (
    <main className="flex h-full items-center justify-center p-4">
      <form
        onSubmit={submit}
        className="w-full max-w-sm space-y-4 rounded-xl border border-edge bg-panel p-6"
        data-testid="login"
      >
        <h1 className="flex items-center gap-2 text-lg font-semibold">
          <KeyRound aria-hidden className="size-5 text-accent" /> wan22
        </h1>
        <TextField
          label="API key"
          type="password"
          autoComplete="current-password"
          autoFocus
          required
          value={key}
          onChange={(event) => setKey(event.target.value)}
          hint="The server's owner makes one with: wan22 keys create NAME"
          error={problem || undefined}
        />
        <Button type="submit" kind="primary" className="w-full" disabled={busy || key.trim() === ""}>
          {busy ? "Checking" : "Log in"}
        </Button>
      </form>
    </main>
  );
}
