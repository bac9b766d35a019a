/** Windows over the page: a dialog in the middle, or a drawer at the right edge. Focus stays inside and returns. */

import { Dialog as Base } from "@base-ui/react/dialog";
import { X } from "lucide-react";
import type { ReactNode } from "react";
import { classes } from "./classes";

type DialogProps = {
  open: boolean;
  onClose: () => void;
  title: string;
  /** One sentence below the title. */
  description?: ReactNode;
  children: ReactNode;
  /** Buttons at the end. */
  footer?: ReactNode;
  width?: "narrow" | "normal" | "wide";
  side?: "middle" | "right";
  testId?: string;
};

const WIDTHS = { narrow: "max-w-md", normal: "max-w-xl", wide: "max-w-6xl" };

export function Dialog(props: DialogProps) {
  const { open, onClose, title, description, children, footer, width = "normal", side = "middle", testId } = props;
  const place =
    side === "right"
      ? "inset-y-0 right-0 h-full w-full max-w-md border-l"
      : `left-1/2 top-1/2 max-h-[92vh] w-[calc(100vw-1.5rem)] -translate-x-1/2 -translate-y-1/2 rounded-xl border ${WIDTHS[width]}`;
  return (
    <Base.Root open={open} onOpenChange={(next) => next || onClose()}>
      <Base.Portal>
        <Base.Backdrop className="fixed inset-0 z-40 bg-shade" />
        <Base.Popup
          data-testid={testId}
          className={classes("fixed z-40 flex flex-col border-edge bg-panel shadow-xl outline-none", place)}
        >
          <header className="flex items-start gap-3 px-5 pt-4 pb-2">
            <div className="min-w-0 flex-1">
              <Base.Title className="text-base font-semibold">{title}</Base.Title>
              {description && <Base.Description className="mt-0.5 text-soft">{description}</Base.Description>}
            </div>
            <Base.Close
              aria-label="Close"
              className="inline-flex size-8 items-center justify-center rounded-lg hover:bg-raised"
            >
              <X aria-hidden className="size-4.5" />
            </Base.Close>
          </header>
          <div className="min-h-0 flex-1 overflow-y-auto px-5 py-2">{children}</div>
          {footer && <footer className="flex justify-end gap-2 border-t border-edge px-5 py-3">{footer}</footer>}
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  );
}
