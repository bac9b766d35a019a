/** Form fields with a label, a line that explains, and the error where it happened. */

import type { ComponentProps, ReactNode } from "react";
import { useId } from "react";
import { classes } from "./classes";

type Around = {
  label: string;
  /** One line that explains the field. */
  hint?: ReactNode;
  error?: string;
  /** Beside the label, at the right. */
  aside?: ReactNode;
  /** The label is for screen readers alone. */
  bare?: boolean;
};

function Labelled({ id, label, hint, error, aside, bare, children }: Around & { id: string; children: ReactNode }) {
  return (
    <div className="flex min-w-0 flex-col gap-1">
      <div className={classes("flex items-baseline justify-between gap-2", bare && !aside && "sr-only")}>
        <label htmlFor={id} className={classes("font-medium", bare && "sr-only")}>
          {label}
        </label>
        {aside}
      </div>
      {children}
      {hint && (
        <p id={`${id}-hint`} className="text-xs text-soft">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} role="alert" className="text-xs text-danger">
          {error}
        </p>
      )}
    </div>
  );
}

function described(id: string, { hint, error }: Around) {
  const by = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  return { "aria-describedby": by || undefined, "aria-invalid": error ? true : undefined };
}

export function TextField({ label, hint, error, aside, bare, className, ...rest }: Around & ComponentProps<"input">) {
  const own = useId();
  const id = rest.id ?? own;
  const around = { label, hint, error, aside, bare };
  return (
    <Labelled id={id} {...around}>
      <input id={id} className={classes("field-box", className)} {...described(id, around)} {...rest} />
    </Labelled>
  );
}

export function TextArea({ label, hint, error, aside, bare, className, ...rest }: Around & ComponentProps<"textarea">) {
  const own = useId();
  const id = rest.id ?? own;
  const around = { label, hint, error, aside, bare };
  return (
    <Labelled id={id} {...around}>
      <textarea id={id} className={classes("field-box resize-y", className)} {...described(id, around)} {...rest} />
    </Labelled>
  );
}

export type Choice<T extends string = string> = { value: T; label: string; disabled?: boolean };

type SelectProps<T extends string> = Around &
  Omit<ComponentProps<"select">, "onChange" | "value" | "children"> & {
    value: T;
    choices: readonly Choice<T>[];
    onChange: (value: T) => void;
  };

export function SelectField<T extends string>(props: SelectProps<T>) {
  const { label, hint, error, aside, bare, className, choices, onChange, ...rest } = props;
  const own = useId();
  const id = rest.id ?? own;
  const around = { label, hint, error, aside, bare };
  return (
    <Labelled id={id} {...around}>
      <select
        id={id}
        className={classes("field-box", className)}
        {...described(id, around)}
        {...rest}
        onChange={(event) => onChange(event.target.value as T)}
      >
        {choices.map((choice) => (
          <option key={choice.value} value={choice.value} disabled={choice.disabled}>
            {choice.label}
          </option>
        ))}
      </select>
    </Labelled>
  );
}

type NumberProps = Around &
  Omit<ComponentProps<"input">, "value" | "onChange" | "type"> & {
    /** null = the field is empty. */
    value: number | null;
    onChange: (value: number | null) => void;
  };

/** A number; what cannot be read as one is null, and `error` says what is wrong with it. */
export function NumberField({ label, hint, error, aside, bare, value, onChange, className, ...rest }: NumberProps) {
  const own = useId();
  const id = rest.id ?? own;
  const around = { label, hint, error, aside, bare };
  return (
    <Labelled id={id} {...around}>
      <input
        id={id}
        type="number"
        inputMode="decimal"
        className={classes("field-box", className)}
        value={value ?? ""}
        onChange={(event) => onChange(event.target.value === "" ? null : event.target.valueAsNumber)}
        {...described(id, around)}
        {...rest}
      />
    </Labelled>
  );
}

type ToggleProps = {
  label: string;
  hint?: ReactNode;
  checked: boolean;
  onChange: (on: boolean) => void;
  disabled?: boolean;
};

export function Toggle({ label, hint, checked, onChange, disabled }: ToggleProps) {
  const id = useId();
  return (
    <div className="flex items-start gap-2.5">
      <input
        id={id}
        type="checkbox"
        className="mt-0.5 size-4 accent-accent"
        checked={checked}
        disabled={disabled}
        aria-describedby={hint ? `${id}-hint` : undefined}
        onChange={(event) => onChange(event.target.checked)}
      />
      <div>
        <label htmlFor={id}>{label}</label>
        {hint && (
          <p id={`${id}-hint`} className="text-xs text-soft">
            {hint}
          </p>
        )}
      </div>
    </div>
  );
}

type SliderProps = Around & {
  value: number;
  min: number;
  max: number;
  step: number;
  /** The value in words, with its unit. */
  shown?: string;
  disabled?: boolean;
  onChange: (value: number) => void;
};

export function SliderField({ label, hint, error, value, shown, onChange, ...rest }: SliderProps) {
  const id = useId();
  const around = { label, hint, error };
  return (
    <Labelled id={id} {...around} aside={<output className="text-soft">{shown ?? value}</output>}>
      <input
        id={id}
        type="range"
        className="h-6 w-full accent-accent"
        value={value}
        aria-valuetext={shown}
        onChange={(event) => onChange(event.target.valueAsNumber)}
        {...described(id, around)}
        {...rest}
      />
    </Labelled>
  );
}
