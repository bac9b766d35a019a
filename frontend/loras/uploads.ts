/** Files on their way to the server, with how far each is. A request by hand: `fetch` tells nothing of what was sent. */

import { create } from "zustand";
import { PREFIX, Problem, type Schemas } from "@/http/client";
import { KEYS, queries } from "@/http/queries";

export type Upload = {
  number: number;
  name: string;
  size: number;
  sent: number;
  state: "waiting" | "sending" | "checking" | "done" | "failed";
  problem?: Problem;
  result?: Schemas["LoraUploaded"];
};

export const useUploads = create<{ uploads: readonly Upload[] }>(() => ({ uploads: [] }));

let last = 0;
let line: Promise<void> = Promise.resolve();

/** Returns the uploads with one of them changed. */
export function changed(uploads: readonly Upload[], number: number, change: Partial<Upload>): readonly Upload[] {
  return uploads.map((one) => (one.number === number ? { ...one, ...change } : one));
}

/** What an answer of the server means: the LoRA, or why it was refused. */
export function read(status: number, text: string): Pick<Upload, "state" | "result" | "problem"> {
  let body: Record<string, unknown> | null = null;
  try {
    body = JSON.parse(text);
  } catch {
    body = null;
  }
  if (status >= 200 && status < 300 && body) return { state: "done", result: body as Schemas["LoraUploaded"] };
  const message = body?.message ?? (status === 0 ? "The server does not answer" : `The server answered ${status}`);
  const problem = new Problem(
    String(message),
    String(body?.error ?? "unknown"),
    status,
    (body?.suggestions ?? []) as string[],
  );
  return { state: "failed", problem };
}

function update(number: number, change: Partial<Upload>) {
  useUploads.setState(({ uploads }) => ({ uploads: changed(uploads, number, change) }));
}

function send(number: number, file: File): Promise<void> {
  return new Promise((done) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file);
    request.open("POST", `${PREFIX}/api/v1/lora/upload`);
    request.upload.onprogress = ({ loaded, lengthComputable, total }) =>
      update(number, { state: "sending", sent: lengthComputable ? (file.size * loaded) / total : 0 });
    request.upload.onload = () => update(number, { state: "checking", sent: file.size });
    request.onloadend = () => {
      update(number, read(request.status, request.responseText));
      void queries.invalidateQueries({ queryKey: KEYS.loras });
      done();
    };
    request.send(form);
  });
}

/** Sends files one after the other. Problems stay with the file that has them. */
export function upload(files: Iterable<File>): void {
  for (const file of files) {
    last += 1;
    const number = last;
    const waiting: Upload = { number, name: file.name, size: file.size, sent: 0, state: "waiting" };
    useUploads.setState(({ uploads }) => ({ uploads: [...uploads, waiting] }));
    line = line.then(() => send(number, file));
  }
}

/** Takes an upload that has ended off the list. */
export function dismiss(number: number): void {
  useUploads.setState(({ uploads }) => ({ uploads: uploads.filter((one) => one.number !== number) }));
}
