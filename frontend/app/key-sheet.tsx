/** All keys of the page on one sheet. Each can be changed, switched off, or put back; conflicts are named. */

import { RotateCcw } from "lucide-react";
import { useEffect, useState } from "react";
import { Button, IconButton } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { TextField } from "@/ui/fields";
import { type Command, keyOf, offered, pressed, shown, useRegistry } from "./commands";
import { usePreferences } from "./preferences";

function setKey(id: string, key: string | null) {
  usePreferences.setState(({ keys }) => {
    const { [id]: _, ...rest } = keys;
    return { keys: key === null ? rest : { ...rest, [id]: key } };
  });
}

export default function KeySheet({ open, onClose }: { open: boolean; onClose: () => void }) {
  const parts = useRegistry((now) => now.parts);
  const keys = usePreferences((now) => now.keys);
  const [search, setSearch] = useState("");
  const [listening, setListening] = useState<Command | null>(null);
  const commands = offered(parts);
  const [conflict, setConflict] = useState("");

  useEffect(() => {
    if (!listening) return;
    function listen(event: KeyboardEvent) {
      const combination = pressed(event);
      if (!combination || !listening) return;
      event.preventDefault();
      event.stopPropagation();
      setListening(null);
      if (combination === "escape") return;
      const other = commands.find((one) => one.id !== listening.id && keyOf(one, keys) === combination);
      setConflict(other ? `${shown(combination)} was the key of “${other.title}”, which has none now.` : "");
      if (other) setKey(other.id, "");
      setKey(listening.id, combination);
    }
    window.addEventListener("keydown", listen, { capture: true });
    return () => window.removeEventListener("keydown", listen, { capture: true });
  }, [listening, commands, keys]);

  const keyText = (command: Command) =>
    listening?.id === command.id ? "Press a key" : shown(keyOf(command, keys)) || "None";
  const wanted = search.toLowerCase();
  const found = commands.filter((one) => `${one.title} ${shown(keyOf(one, keys))}`.toLowerCase().includes(wanted));
  const groups = [...new Set(found.map((one) => one.group))];
  return (
    <Dialog
      open={open}
      onClose={onClose}
      title="Keys"
      description="Of this page and what is open in it. Press a key's button to change it."
      testId="key-sheet"
      footer={
        <Button icon={RotateCcw} onClick={() => usePreferences.setState({ keys: {} })}>
          Reset all
        </Button>
      }
    >
      <TextField
        label="Search keys"
        bare
        placeholder="Search"
        value={search}
        onChange={(e) => setSearch(e.target.value)}
      />
      <p role="status" className="min-h-5 text-xs text-warn">
        {conflict}
      </p>
      {groups.map((group) => (
        <section key={group} className="mb-3">
          <h3 className="mb-1 text-xs font-semibold text-soft">{group}</h3>
          <ul>
            {found
              .filter((one) => one.group === group)
              .map((command) => (
                <li key={command.id} className="flex min-h-9 items-center gap-2">
                  <span className="flex-1">{command.title}</span>
                  {keys[command.id] !== undefined && (
                    <IconButton
                      size="small"
                      icon={RotateCcw}
                      label={`Reset the key of ${command.title}`}
                      onClick={() => setKey(command.id, null)}
                    />
                  )}
                  <Button
                    size="small"
                    aria-label={`${keyText(command)}: change the key of ${command.title}`}
                    onClick={() => setListening(command)}
                  >
                    {keyText(command)}
                  </Button>
                </li>
              ))}
          </ul>
        </section>
      ))}
    </Dialog>
  );
}
