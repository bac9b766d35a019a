import { describe, expect, it } from "vitest";
import { changed, read, type Upload } from "./uploads";

describe("an upload", () => {
  it("ends with the LoRA, or with the refusal in the server's words", () => {
    expect(read(200, '{"id": "mine"}')).toMatchObject({ state: "done", result: { id: "mine" } });
    const { state, problem } = read(
      422,
      '{"message": "not a LoRA", "error": "lora_invalid", "suggestions": ["Take another"]}',
    );
    expect(state).toBe("failed");
    expect(problem).toMatchObject({ message: "not a LoRA", code: "lora_invalid", suggestions: ["Take another"] });
  });

  it("says that nobody answered, and what is no JSON", () => {
    expect(read(0, "").problem?.message).toBe("The server does not answer");
    expect(read(413, "<html>").problem?.message).toBe("The server answered 413");
  });

  it("changes alone", () => {
    const uploads = [
      { number: 1, sent: 0 },
      { number: 2, sent: 0 },
    ] as Upload[];
    expect(changed(uploads, 2, { sent: 5 }).map((one) => one.sent)).toEqual([0, 5]);
  });
});
