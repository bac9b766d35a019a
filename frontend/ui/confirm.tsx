/** Asks before something that cannot be taken back: what it does, and what it costs. */

import type { ReactNode } from "react";
import { ProblemNote } from "@/http/problem-note";
import { Button } from "./button";
import { Dialog } from "./dialog";

type ConfirmProps = {
  open: boolean;
  title: string;
  /** The consequences. */
  children: ReactNode;
  /** The button that does it, in words. */
  deed: string;
  busy?: boolean;
  error?: unknown;
  /** Why it cannot be done now. */
  blocked?: boolean;
  onConfirm: () => void;
  onClose: () => void;
};

export function Confirm({ open, title, children, deed, busy, error, blocked, onConfirm, onClose }: ConfirmProps) {
  return (
    <Dialog
      open={open}
      onClose={onClose}
      title={title}
      width="narrow"
      testId="confirm"
      footer={
        <>
          <Button onClick={onClose}>Keep</Button>
          <Button kind="danger" disabled={busy || blocked} onClick={onConfirm}>
            {deed}
          </Button>
        </>
      }
    >
      <div className="space-y-2">
        {children}
        {error ? <ProblemNote error={error} /> : null}
      </div>
    </Dialog>
  );
}
