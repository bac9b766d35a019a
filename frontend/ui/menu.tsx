/** Menus: behind a button, or at the pointer. Both show the same list of entries. */

import { ContextMenu } from "@base-ui/react/context-menu";
import { Menu } from "@base-ui/react/menu";
import type { LucideIcon } from "lucide-react";
import type { ReactElement } from "react";
import { classes } from "./classes";
import { Key } from "./key";

export type Entry =
  | "line"
  | {
      label: string;
      icon?: LucideIcon;
      shortcut?: string;
      danger?: boolean;
      disabled?: boolean;
      run: () => void;
    };

const POPUP = "z-50 min-w-48 rounded-lg border border-edge bg-panel p-1 shadow-lg outline-none";

function Entries({ entries }: { entries: Entry[] }) {
  return entries.map((entry, place) =>
    entry === "line" ? (
      // biome-ignore lint/suspicious/noArrayIndexKey: a line has nothing but its place
      <Menu.Separator key={`line-${place}`} className="my-1 h-px bg-edge" />
    ) : (
      <Menu.Item
        key={entry.label}
        disabled={entry.disabled}
        onClick={entry.run}
        className={classes(
          "flex cursor-pointer items-center gap-2.5 rounded-md px-2.5 py-1.5 outline-none data-disabled:opacity-50 data-highlighted:bg-raised",
          entry.danger && "text-danger",
        )}
      >
        {entry.icon ? <entry.icon aria-hidden className="size-4" /> : <span className="size-4" />}
        <span className="flex-1">{entry.label}</span>
        {entry.shortcut && <Key>{entry.shortcut}</Key>}
      </Menu.Item>
    ),
  );
}

/** `trigger` is a button that opens the menu. */
export function ActionMenu({ trigger, entries }: { trigger: ReactElement; entries: Entry[] }) {
  return (
    <Menu.Root>
      <Menu.Trigger render={trigger as ReactElement<Record<string, unknown>>} />
      <Menu.Portal>
        <Menu.Positioner sideOffset={4} align="end" className="z-50">
          <Menu.Popup className={POPUP}>
            <Entries entries={entries} />
          </Menu.Popup>
        </Menu.Positioner>
      </Menu.Portal>
    </Menu.Root>
  );
}

/** One menu for everything inside `children`; `entries` is asked when it opens. */
export function PointerMenu({ children, entries }: { children: ReactElement; entries: Entry[] }) {
  return (
    <ContextMenu.Root>
      <ContextMenu.Trigger render={children as ReactElement<Record<string, unknown>>} />
      <ContextMenu.Portal>
        <ContextMenu.Positioner className="z-50">
          <ContextMenu.Popup className={POPUP}>
            <Entries entries={entries} />
          </ContextMenu.Popup>
        </ContextMenu.Positioner>
      </ContextMenu.Portal>
    </ContextMenu.Root>
  );
}
