// Makes a video with the package `openai`: node examples/openai_sdk.mjs "a red circle moving right" circle.mp4
import { writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import OpenAI from "openai";

const [prompt, file] = process.argv.slice(2);
const client = new OpenAI({
  baseURL: `${process.env.WAN22_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.WAN22_KEY ?? "unused",
});
let video = await client.videos.create({ prompt, seconds: "1" });
while (["queued", "in_progress"].includes(video.status)) {
  // The server says when it is worth asking again.
  const { data, response } = await client.videos.retrieve(video.id).withResponse();
  video = data;
  await pause(Number(response.headers.get("openai-poll-after-ms") ?? 0));
}
if (video.status !== "completed") throw new Error(`the video failed: ${video.error?.message}`);
const content = await client.videos.downloadContent(video.id);
await writeFile(file, Buffer.from(await content.arrayBuffer()));
console.log(file);
