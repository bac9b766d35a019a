/** The page for an address that does not exist, and for a fault of the page itself. */

import { Link } from "@tanstack/react-router";
import { Compass, TriangleAlert } from "lucide-react";
import { useEffect } from "react";
import { api } from "@/http/client";
import { Button } from "@/ui/button";
import { Empty } from "@/ui/status";

export function MissingPage() {
  return (
    <Empty icon={Compass} title="There is nothing at this address">
      <Link to="/" className="text-accent-strong underline">
        Make a clip
      </Link>
    </Empty>
  );
}

/** Reports the fault to the server's log, where it can be looked up with the rest. */
export function ErrorPage({ error: thrown }: { error: unknown }) {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  useEffect(() => {
    const report = { error_type: error.name, message: error.message.slice(0, 500), url: location.pathname };
    void api.POST("/api/v1/analytics/errors", { body: { errors: [report] } as never }).catch(() => undefined);
  }, [error]);
  return (
    <div role="alert">
      <Empty icon={TriangleAlert} title="This page has a fault">
        <p className="mb-3 break-words">{error.message}</p>
        <p className="mb-3">Your queue and your clips are on the server and are not affected.</p>
        <Button kind="primary" onClick={() => location.reload()}>
          Load it again
        </Button>
      </Empty>
    </div>
  );
}
