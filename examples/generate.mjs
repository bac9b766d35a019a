// Makes a video with Node and nothing else: node examples/generate.mjs "a red circle moving right" circle.mp4
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";

const url = process.env.WAN22_URL ?? "http://127.0.0.1:8000";
const headers = { Authorization: `Bearer ${process.env.WAN22_KEY ?? "unused"}`, "Content-Type": "application/json" };
const [prompt, file] = process.argv.slice(2);

async function call(method, path, body) {
  const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) {
    const error = await answer.json();
    throw new Error([error.message, ...error.suggestions].join(" "));
  }
  return answer;
}

// With a key of its own a request can be sent again after a lost answer, and still makes one video.
const asked = { model_type: "auto", prompt, client_request_id: randomUUID() };
const { task_id: id, message } = await (await call("POST", "/api/v1/generation/submit", asked)).json();
console.log(message);
let task;
do {
  await pause(500);
  task = await (await call("GET", `/api/v1/queue/${id}`)).json();
  console.log(`${task.progress} % ${task.message ?? ""}`);
} while (["pending", "processing"].includes(task.status));
if (task.status !== "completed") throw new Error(`the task ended as ${task.status}: ${task.error_message ?? ""}`);
await writeFile(file, Buffer.from(await (await call("GET", `/api/v1/outputs/${id}/download`)).arrayBuffer()));
console.log(file);
