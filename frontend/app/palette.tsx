/** The palette: everything the page can do now, found by typing a part of its name. */

import { Command as Palette } from "cmdk";
import { Dialog } from "@/ui/dialog";
import { Key } from "@/ui/key";
import { keyOf, offered, shown, useRegistry } from "./commands";
import { usePreferences } from "./preferences";

export default function CommandPalette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const parts = useRegistry((now) => now.parts);
  const keys = usePreferences((now) => now.keys);
  const commands = offered(parts).filter((one) => one.enabled !== false && one.id !== "window.palette");
  const groups = [...new Set(commands.map((one) => one.group))];
  return (
    <Dialog open={open} onClose={onClose} title="What do you want to do?" testId="palette">
      <Palette label="Commands" className="flex flex-col pb-2" loop>
        <Palette.Input autoFocus placeholder="Type a part of its name" className="field-box mb-2" />
        <Palette.List className="max-h-[50vh] overflow-y-auto">
          <Palette.Empty className="py-6 text-center text-soft">Nothing has that name here.</Palette.Empty>
          {groups.map((group) => (
            <Palette.Group
              key={group}
              heading={group}
              className="[&_[cmdk-group-heading]]:px-2 [&_[cmdk-group-heading]]:py-1 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-soft"
            >
              {commands
                .filter((one) => one.group === group)
                .map((command) => {
                  const key = keyOf(command, keys);
                  return (
                    <Palette.Item
                      key={command.id}
                      value={`${command.title} ${command.group}`}
                      onSelect={() => {
                        onClose();
                        // After the window has given the focus back.
                        setTimeout(command.run);
                      }}
                      className="flex cursor-pointer items-center gap-3 rounded-md px-2 py-1.5 data-[selected=true]:bg-raised"
                    >
                      {command.icon ? <command.icon aria-hidden className="size-4" /> : <span className="size-4" />}
                      <span className="flex-1">{command.title}</span>
                      {key && <Key>{shown(key)}</Key>}
                    </Palette.Item>
                  );
                })}
            </Palette.Group>
          ))}
        </Palette.List>
      </Palette>
    </Dialog>
  );
}
