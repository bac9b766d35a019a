/** Says honestly that the page is not up to date, and that the queue does not need it. */

import { WifiOff } from "lucide-react";
import { useEffect, useState } from "react";
import { useConnection } from "./connection";

/** A loss shorter than this is not worth a word, in milliseconds. */
const PATIENCE = 1_500;

export function OfflineBanner() {
  const { state, lostAt } = useConnection();
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (state !== "lost") {
      setShown(false);
      return;
    }
    const timer = setTimeout(() => setShown(true), PATIENCE);
    return () => clearTimeout(timer);
  }, [state]);
  if (!shown) return null;
  const since = lostAt ? new Date(lostAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : "";
  return (
    <div
      role="status"
      data-testid="offline-banner"
      className="fixed inset-x-0 top-0 z-50 flex items-center justify-center gap-2 bg-warn px-4 py-1.5 text-panel"
    >
      <WifiOff aria-hidden className="size-4" />
      No connection to the server since {since}. The queue goes on without this page; it catches up by itself.
    </div>
  );
}
