/** One setting: its meaning, its legal values, where its value comes from, and a field that fits. */

import { RotateCcw } from "lucide-react";
import { IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { SelectField, TextArea, TextField } from "@/ui/fields";
import { Badge } from "@/ui/status";
import { asText, kindOf, locked, type Setting, titleOf, written } from "./settings";

type FieldProps = {
  setting: Setting;
  /** The edited text; undefined while nobody has edited it. */
  text: string | undefined;
  error?: string;
  /** The nearest legal value that the refusal names. */
  nearest?: unknown;
  onChange: (text: string) => void;
};

const SOURCES: Record<string, string> = {
  "config.json": "set in config.json",
  environment: "environment variable",
  "command line": "command line",
};

function Control({ setting, text, error, onChange, disabled }: FieldProps & { disabled: boolean }) {
  const kind = kindOf(setting);
  const shown = text ?? asText(written(setting));
  const common = { label: titleOf(setting.name), bare: true, disabled, error, "data-testid": `field-${setting.name}` };
  switch (kind.type) {
    case "switch":
      return (
        <SelectField
          {...common}
          value={shown}
          choices={[
            { value: "true", label: "On" },
            { value: "false", label: "Off" },
          ]}
          onChange={onChange}
        />
      );
    case "choice": {
      const choices = kind.choices.includes(shown) ? kind.choices : [shown, ...kind.choices];
      return (
        <SelectField
          {...common}
          value={shown}
          choices={choices.map((value) => ({ value, label: value }))}
          onChange={onChange}
        />
      );
    }
    case "list":
      return (
        <TextArea
          {...common}
          rows={2}
          placeholder="One a line"
          value={shown}
          onChange={(event) => onChange(event.target.value)}
        />
      );
    default:
      return (
        <TextField
          {...common}
          inputMode={kind.type === "number" ? "decimal" : undefined}
          placeholder={kind.optional ? "None" : undefined}
          value={shown}
          onChange={(event) => onChange(event.target.value)}
        />
      );
  }
}

export function SettingField(props: FieldProps) {
  const { setting, text, error, nearest, onChange } = props;
  const why = locked(setting);
  const changed = text !== undefined && text !== asText(written(setting));
  const usual = asText(setting.default);
  const differs = (text ?? asText(written(setting))) !== usual;
  return (
    <div
      className={classes(
        "grid gap-x-6 gap-y-2 border-t border-edge py-3 first:border-t-0 md:grid-cols-[minmax(0,1fr)_16rem]",
        changed && "border-l-2 border-l-accent pl-3",
      )}
      data-testid={`setting-${setting.name}`}
    >
      <div className="min-w-0">
        <h3 className="flex flex-wrap items-center gap-2 font-medium">
          {titleOf(setting.name)}
          {setting.at_restart && !why && <Badge>From the next start</Badge>}
          {setting.next_value != null && <Badge tone="warn">Waits for a restart</Badge>}
          {changed && <Badge tone="accent">Changed</Badge>}
        </h3>
        <p>{setting.meaning}.</p>
        <p className="text-xs break-words text-soft">
          {setting.legal.replaceAll("`", "")} · default {usual.replaceAll("\n", ", ") || "none"}
          {setting.source !== "default" && ` · ${SOURCES[setting.source] ?? setting.source}`}
          {setting.next_value != null && ` · in force ${asText(setting.value) || "none"}`}
        </p>
        {why && <p className="text-xs text-warn">{why}</p>}
      </div>
      <div className="flex items-start gap-1">
        <div className="min-w-0 flex-1 space-y-1">
          <Control {...props} disabled={why !== null} />
          {error && nearest !== undefined && (
            <button
              type="button"
              className="rounded text-xs font-medium text-accent-strong underline underline-offset-2"
              onClick={() => onChange(asText(nearest))}
            >
              Use {asText(nearest)}
            </button>
          )}
        </div>
        {!why && (
          <IconButton
            label={`Default of ${titleOf(setting.name)}`}
            icon={RotateCcw}
            disabled={!differs}
            onClick={() => onChange(usual)}
          />
        )}
      </div>
    </div>
  );
}
