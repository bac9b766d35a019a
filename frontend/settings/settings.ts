/** Settings as text that can be edited: which control fits one, how its value is written, and what has changed. */

import type { Schemas } from "@/http/client";

export type Setting = Schemas["SettingView"];

/** The control that fits a setting. */
export type Kind =
  | { type: "switch" }
  | { type: "choice"; choices: string[] }
  | { type: "number"; optional: boolean }
  | { type: "list" }
  | { type: "text"; optional: boolean };

/** Texts of edited settings by name. */
export type Draft = Readonly<Record<string, string>>;

const NUMBER = /^(null, or )?(between|at least|at most|above|below|from)\b/;

/** Reads from the legal values, which the server states in words, which control fits. */
export function kindOf({ legal, value, default: usual }: Pick<Setting, "legal" | "value" | "default">): Kind {
  const optional = legal.startsWith("null");
  if (legal.startsWith("`true`")) return { type: "switch" };
  const choices = /^((?:`[^`]+`(?:, )?)+)/.exec(legal)?.[1]?.match(/`([^`]+)`/g);
  if (choices && choices.length > 1) return { type: "choice", choices: choices.map((one) => one.slice(1, -1)) };
  if (legal.startsWith("a list") || Array.isArray(value) || Array.isArray(usual)) return { type: "list" };
  if (NUMBER.test(legal) || typeof value === "number" || typeof usual === "number") return { type: "number", optional };
  return { type: "text", optional: optional || usual === null };
}

/** The value of a setting as a field shows it; a list has one entry a line, and nothing stands for null. */
export function asText(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The value that a text stands for. What is no number stays text: the server says what is wrong with it. */
export function asValue(text: string, kind: Kind): unknown {
  switch (kind.type) {
    case "switch":
      return text === "true";
    case "list":
      return text
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    case "number":
      if (text.trim() === "") return kind.optional ? null : "";
      return Number.isNaN(Number(text)) ? text : Number(text);
    case "text":
      return text === "" && kind.optional ? null : text;
    case "choice":
      return text;
  }
}

/** What config.json says, or will say: a value that waits for a start of the server is above the one in force. */
export function written(setting: Setting): unknown {
  return setting.next_value ?? setting.value;
}

/** The edited settings that differ from what the server has, as the body of the change. */
export function changes(settings: readonly Setting[], draft: Draft): Record<string, unknown> {
  const changed = settings.filter(({ name, ...setting }) => {
    const text = draft[name];
    return text !== undefined && text !== asText(written({ name, ...setting }));
  });
  return Object.fromEntries(
    changed.map((setting) => [setting.name, asValue(draft[setting.name] ?? "", kindOf(setting))]),
  );
}

/** Why a setting cannot be changed here; null when it can. */
export function locked({ changeable, source }: Setting): string | null {
  if (source === "environment") return "An environment variable of the server sets it, and stands above config.json.";
  if (source === "command line") return "The command line of the server sets it, and stands above config.json.";
  if (!changeable) return "It decides who reaches the server or which files it uses: change it at the machine itself.";
  return null;
}

/** Words that are short for others, as people write them. */
const SHORT: Record<string, string> = {
  vae: "VAE",
  vram: "VRAM",
  ram: "RAM",
  cpu: "CPU",
  gb: "GB",
  mb: "MB",
  mbps: "MB/s",
  url: "URL",
  json: "JSON",
  oom: "out-of-memory",
  cors: "CORS",
};

/** The key of a setting as a title: `vae_tile_size` is `VAE tile size`. */
export function titleOf(name: string): string {
  const words = (name.split(".").pop() ?? name).split("_").map((word) => SHORT[word] ?? word);
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const SECTIONS: Record<string, string> = {
  optimization: "Memory and speed",
  generation: "Generation",
  constraints: "Limits and warnings",
  downloads: "Downloads",
  schedule: "Hours",
  give_way: "Giving way to other programs",
  settings: "Server",
};

/** A section of the settings, in words. */
export function sectionOf(name: string): string {
  const section = name.split(".")[0] ?? "";
  return SECTIONS[section] ?? titleOf(section);
}

/** The settings whose name, section or meaning has every word of the search. */
export function found(settings: readonly Setting[], search: string): Setting[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return settings.filter((one) => {
    const text = `${one.name} ${titleOf(one.name)} ${sectionOf(one.name)} ${one.meaning}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
