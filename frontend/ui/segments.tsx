/** One of a few choices, all visible: a row of radio buttons that looks like one control. */

import { useId } from "react";
import { classes } from "./classes";
import type { Choice } from "./fields";

type SegmentsProps<T extends string> = {
  label: string;
  value: T;
  choices: readonly Choice<T>[];
  onChange: (value: T) => void;
};

export function Segments<T extends string>({ label, value, choices, onChange }: SegmentsProps<T>) {
  const name = useId();
  return (
    <fieldset className="flex rounded-lg border border-control bg-panel p-0.5">
      <legend className="sr-only">{label}</legend>
      {choices.map((choice) => (
        <label
          key={choice.value}
          className={classes(
            "flex-1 cursor-pointer rounded-md px-2.5 py-1 text-center whitespace-nowrap text-soft has-focus-visible:outline-2 has-focus-visible:outline-accent",
            choice.value === value && "bg-tint font-medium text-accent-strong",
            choice.disabled && "cursor-not-allowed opacity-50",
          )}
        >
          <input
            type="radio"
            className="sr-only"
            name={name}
            value={choice.value}
            checked={choice.value === value}
            disabled={choice.disabled}
            onChange={() => onChange(choice.value)}
          />
          {/* Changed words are a new element: their middle stays, so nothing has moved. */}
          <span key={choice.label}>{choice.label}</span>
        </label>
      ))}
    </fieldset>
  );
}
