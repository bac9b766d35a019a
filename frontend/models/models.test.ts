import { describe, expect, it } from "vitest";
import {
  chosenRows,
  type Download,
  type Fit,
  fitInWords,
  type Model,
  type Row,
  retryInWords,
  sentence,
  stateOf,
} from "./models";

const model = (id: string, over: Partial<Model> = {}): Model =>
  ({ id, status: "missing", is_available: false, embedded: false, ...over }) as Model;
const fitting = (verdict: Fit["verdict"], over: Partial<Fit> = {}): Fit =>
  ({ verdict, reason: "resident-bf16: fits", clip: "1280x720, 81 frames", ...over }) as Fit;
const download = (status: string, over: Partial<Download> = {}): Download =>
  ({ status, last_update: "2026-01-01T00:00:00Z", ...over }) as Download;

describe("the list of models", () => {
  const rows: Row[] = [
    { model: model("large"), fit: fitting("no") },
    { model: model("tiny", { status: "available", is_available: true, embedded: true }), fit: fitting("yes") },
    { model: model("fits"), fit: fitting("yes") },
    { model: model("coming", { status: "partial" }), fit: fitting("no"), download: download("paused") },
    { model: model("mine", { status: "available", is_available: true }), fit: fitting("slowly") },
  ];

  it("begins with what comes and what is here", () => {
    expect(chosenRows(rows, "all").map((row) => row.model.id)).toEqual(["coming", "mine", "tiny", "fits", "large"]);
  });

  it("leaves what is here, or what fits", () => {
    expect(chosenRows(rows, "here").map((row) => row.model.id)).toEqual(["coming", "mine", "tiny"]);
    expect(chosenRows(rows, "fits").map((row) => row.model.id)).toEqual(["mine", "tiny", "fits"]);
  });

  it("shows the state of a download while it has one", () => {
    expect(stateOf({ model: model("a", { status: "partial" }), download: download("paused") })).toBe("paused");
    expect(stateOf({ model: model("a"), download: download("cancelled") })).toBe("missing");
    expect(
      stateOf({ model: model("a", { status: "available", is_available: true }), download: download("failed") }),
    ).toBe("available");
  });
});

describe("words", () => {
  it("says how long a clip takes where that is known", () => {
    expect(fitInWords(fitting("slowly", { seconds: 7200 })).why).toContain(
      "1280x720, 81 frames takes about 2 h 00 min",
    );
    expect(fitInWords(fitting("yes")).why).toBe("resident-bf16: fits.");
  });

  it("counts the seconds to the next attempt down", () => {
    const paused = download("downloading", {
      retry: { count: 2, most: 5, message: "the hub answered 503", seconds: 8 },
    });
    const start = Date.parse("2026-01-01T00:00:00Z");
    expect(retryInWords(paused, start + 3000)).toBe("The hub answered 503. Attempt 2 of 5 again in 5 s.");
    expect(retryInWords(paused, start + 9000)).toContain("again now");
    expect(retryInWords(download("downloading"), start)).toBeNull();
  });

  it("makes sentences and leaves names alone", () => {
    expect(sentence("it needs files")).toBe("It needs files.");
    expect(sentence("tiny-t2v: one")).toBe("tiny-t2v: one.");
  });
});
