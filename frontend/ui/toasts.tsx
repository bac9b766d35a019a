/**
 * Short messages at the edge: what was done, with a way back where there is one.
 * Base UI's toasts instead of sonner: sonner writes a style element, which the content security policy refuses.
 */

import { Toast } from "@base-ui/react/toast";
import { X } from "lucide-react";
import type { ReactNode } from "react";
import { IconButton } from "./button";

const manager = Toast.createToastManager();

/** How long a message stays; one with an action stays as long as that can be taken, in milliseconds. */
const STAYS = 6_000;
const UNDO_STAYS = 30_000;

type Saying = {
  title: string;
  text?: string;
  action?: { label: string; run: () => void };
  urgent?: boolean;
  /** Called when the message has gone and nobody took the action. */
  gone?: () => void;
};

export function say({ title, text, action, urgent, gone }: Saying): void {
  let taken = false;
  const id = manager.add({
    onClose: () => taken || gone?.(),
    title,
    description: text,
    timeout: action ? UNDO_STAYS : STAYS,
    priority: urgent ? "high" : "low",
    actionProps: action && {
      children: action.label,
      onClick: () => {
        taken = true;
        manager.close(id);
        action.run();
      },
    },
  });
}

export function Toasts({ children }: { children: ReactNode }) {
  return (
    <Toast.Provider toastManager={manager} limit={4}>
      {children}
      <Toast.Portal>
        <Toast.Viewport className="fixed right-3 bottom-18 z-50 flex w-80 max-w-[calc(100vw-1.5rem)] flex-col gap-2 md:bottom-3">
          <List />
        </Toast.Viewport>
      </Toast.Portal>
    </Toast.Provider>
  );
}

function List() {
  const { toasts } = Toast.useToastManager();
  return toasts.map((toast) => (
    <Toast.Root
      key={toast.id}
      toast={toast}
      className="flex items-start gap-2 rounded-lg border border-edge bg-panel p-3 shadow-lg data-limited:hidden"
    >
      <Toast.Content className="min-w-0 flex-1">
        <Toast.Title className="font-medium" />
        <Toast.Description className="text-soft" />
        <Toast.Action className="mt-1.5 rounded-md font-medium text-accent-strong underline underline-offset-2" />
      </Toast.Content>
      <Toast.Close render={<IconButton label="Dismiss" icon={X} size="small" />} />
    </Toast.Root>
  ));
}
