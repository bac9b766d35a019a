import { describe, expect, it } from "vitest";
import { asText, asValue, changes, found, kindOf, locked, type Setting, titleOf } from "./settings";

const setting = (name: string, over: Partial<Setting> = {}): Setting => ({
  name,
  value: 256,
  default: 256,
  source: "default",
  meaning: "",
  legal: "between 128 and 512 pixels",
  at_restart: false,
  changeable: true,
  ...over,
});

describe("the control of a setting", () => {
  it.each([
    ["`true`, `false`", true, "switch"],
    ["`auto`, `bf16`, `fp8`; fp16 is stored as bf16", "auto", "choice"],
    ["null, or between 1 and 10000 GiB", null, "number"],
    ["at least 0", 5, "number"],
    ['a list of windows such as `"22:00-07:00"`', [], "list"],
    ["text", "auto", "text"],
  ])("follows from %s", (legal, value, type) => {
    expect(kindOf({ legal, value, default: value }).type).toBe(type);
  });

  it("reads the choices", () => {
    const kind = kindOf({ legal: "`auto`, `bf16`, `fp8`; fp16 is stored as bf16", value: "auto", default: "auto" });
    expect(kind).toEqual({ type: "choice", choices: ["auto", "bf16", "fp8"] });
  });
});

describe("values", () => {
  it("come back as they were", () => {
    for (const [value, legal] of [
      [true, "`true`, `false`"],
      [null, "null, or between 1 and 9"],
      [2.5, "at least 0"],
      [["22:00-07:00", "Sat 00:00-24:00"], "a list of windows"],
      ["cuda:1", "text"],
    ] as const) {
      expect(asValue(asText(value), kindOf({ legal, value, default: value }))).toEqual(value);
    }
  });

  it("leave what is no number to the server", () => {
    expect(asValue("abc", { type: "number", optional: false })).toBe("abc");
    expect(asValue("", { type: "number", optional: true })).toBeNull();
    expect(asValue("", { type: "number", optional: false })).toBe("");
  });
});

describe("changes", () => {
  const settings = [setting("a.one"), setting("a.two", { value: 1, next_value: 2 }), setting("a.three", { value: 3 })];

  it("are what differs from what is written, with what waits for a start above what is in force", () => {
    expect(changes(settings, { "a.one": "384", "a.two": "2", "a.three": "3" })).toEqual({ "a.one": 384 });
    expect(changes(settings, { "a.two": "1" })).toEqual({ "a.two": 1 });
  });

  it("are refused here where the environment decides", () => {
    expect(locked(setting("a.b", { source: "environment" }))).toContain("environment variable");
    expect(locked(setting("a.b", { changeable: false }))).toContain("at the machine");
    expect(locked(setting("a.b"))).toBeNull();
  });
});

it("finds settings by every word, in name and meaning", () => {
  const all = [
    setting("downloads.bandwidth_limit_mbps", { meaning: "Megabytes per second" }),
    setting("settings.trash_days"),
  ];
  expect(found(all, "Limit mega").map((one) => one.name)).toEqual(["downloads.bandwidth_limit_mbps"]);
  expect(found(all, "")).toHaveLength(2);
  expect(titleOf("settings.trash_days")).toBe("Trash days");
});
