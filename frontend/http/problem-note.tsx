/** Where something went wrong: what happened, and the next steps, of which the page can take some itself. */

import { TriangleAlert } from "lucide-react";
import { Button } from "@/ui/button";
import { asProblem, type NextStep } from "./client";

type ProblemNoteProps = {
  error: unknown;
  /** Takes a next step; without it, steps are only named. Return the button's text, or null if it cannot be taken here. */
  steps?: (step: NextStep) => { label: string; run: () => void } | null;
  retry?: () => void;
};

export function ProblemNote({ error, steps, retry }: ProblemNoteProps) {
  const problem = asProblem(error);
  const buttons = problem.actions.flatMap((step) => steps?.(step) ?? []);
  return (
    <div role="alert" data-testid="problem" className="flex gap-2.5 rounded-lg border border-danger bg-panel px-3 py-2">
      <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-danger" />
      <div className="min-w-0 space-y-1">
        <p className="font-medium text-danger">{problem.message}</p>
        {problem.suggestions.map((suggestion) => (
          <p key={suggestion}>{suggestion}</p>
        ))}
        {(buttons.length > 0 || retry) && (
          <div className="flex flex-wrap gap-2 pt-1">
            {buttons.map((button) => (
              <Button key={button.label} size="small" onClick={button.run}>
                {button.label}
              </Button>
            ))}
            {retry && (
              <Button size="small" onClick={retry}>
                Try again
              </Button>
            )}
          </div>
        )}
      </div>
    </div>
  );
}
