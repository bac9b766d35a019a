/** The queue over any page. The server drives it: closing the page stops nothing. */

import { Dialog } from "@/ui/dialog";
import { QueuePanel } from "./queue-panel";

export default function QueueDrawer({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog
      open={open}
      onClose={onClose}
      side="right"
      title="Queue"
      description="It goes on when this page is closed."
      testId="queue-panel"
    >
      <QueuePanel />
    </Dialog>
  );
}
