// What the JavaScript package `openai` does with a real server. Prints one line of JSON: each case with its error or null.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const given = JSON.parse(process.env.GIVEN); // url, proxy, keys, image: the path of a PNG
const PROMPT = "a red circle moving right on a navy background";
const MODEL = "tiny-t2v-a14b";
const DEADLINE_MS = 60_000;

let nextSeed = 1000;
let clicks = 0;

function library(options = {}) {
  return new OpenAI({ apiKey: given.keys.maker, baseURL: `${given.url}/v1`, maxRetries: 0, ...options });
}

/** A client whose answers are lost as the list says, one for each attempt. */
function behind(faults, options = {}) {
  const headers = { "X-Lose": faults, "X-Click": `js-${clicks++}` };
  return library({ baseURL: `${given.proxy}/v1`, maxRetries: 2, defaultHeaders: headers, ...options });
}

function wish(more = {}) {
  return { prompt: PROMPT, model: MODEL, size: "64x64", num_frames: 5, steps: 2, seed: nextSeed++, ...more };
}

/** Ask until the video has ended, as often as the server says. */
async function followed(client, id) {
  const deadline = Date.now() + DEADLINE_MS;
  const seen = [];
  for (;;) {
    const { data, response } = await client.videos.retrieve(id).withResponse();
    seen.push(data.progress);
    if (data.status === "completed" || data.status === "failed") return { video: data, seen };
    const wait = Number(response.headers.get("openai-poll-after-ms"));
    assert.ok(wait >= 500 && wait <= 10_000, `openai-poll-after-ms is ${wait}`);
    assert.ok(Date.now() < deadline, "the video did not end");
    await pause(Math.min(wait, 700)); // with all cases at once the queue is long, and the pauses would be, too
  }
}

async function made(client, more = {}) {
  const { video } = await followed(client, (await client.videos.create(wish(more))).id);
  assert.equal(video.status, "completed", JSON.stringify(video.error));
  return video;
}

/** Take videos that nobody waits for out of the queue. */
async function dropped(ids) {
  for (const id of ids) await library({ maxRetries: 5 }).videos.delete(id);
}

async function bytes(response) {
  return Buffer.from(await response.arrayBuffer());
}

/** How many videos have this seed. */
async function count(seed) {
  let found = 0;
  for await (const video of library().videos.list({ limit: 100 })) found += video.seed === seed;
  return found;
}

async function refused(kind, code, param, action) {
  const error = await action().then(
    () => assert.fail("it was not refused"),
    (thrown) => thrown,
  );
  assert.ok(error instanceof kind, `${error}`);
  assert.equal(error.code, code);
  assert.equal(error.param, param);
  assert.ok(error.message.length > 10);
  assert.ok(error.requestID);
  return error;
}

const cases = {
  async a_video_is_made_followed_and_fetched_in_every_variant() {
    const client = library();
    const asked = wish();
    const queued = await client.videos.create(asked);
    assert.equal(queued.object, "video");
    assert.equal(queued.size, "64x64");
    assert.equal(queued.model, MODEL);
    const { video, seen } = await followed(client, queued.id);
    assert.equal(video.status, "completed");
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    assert.equal(seen.at(-1), 100);
    assert.equal(typeof video.completed_at, "number");
    const file = await bytes(await client.videos.downloadContent(video.id));
    assert.equal(file.subarray(4, 8).toString(), "ftyp");
    const part = await client.videos.downloadContent(video.id, {}, { headers: { Range: "bytes=4-7" } });
    assert.equal(part.status, 206);
    assert.equal((await bytes(part)).toString(), "ftyp");
    for (const variant of ["thumbnail", "spritesheet"]) {
      const picture = await client.videos.downloadContent(video.id, { variant });
      assert.match(picture.headers.get("content-type"), /^image\//);
      assert.equal((await bytes(picture)).subarray(0, 2).toString("hex"), "ffd8");
    }
  },

  async an_image_is_sent_as_a_file() {
    const image = await toFile(await readFile(given.image), "start.png", { type: "image/png" });
    const video = await made(library(), { model: "tiny-i2v-a14b", input_reference: image });
    assert.equal(video.model, "tiny-i2v-a14b");
  },

  async pages_of_the_list_have_every_video_once() {
    const client = library();
    const ids = [];
    for (let i = 0; i < 4; i++) ids.push((await client.videos.create(wish())).id);
    const walked = async (query) => {
      const found = [];
      for await (const video of client.videos.list(query)) if (ids.includes(video.id)) found.push(video.id);
      return found;
    };
    assert.deepEqual(await walked({ limit: 2 }), [...ids].reverse());
    assert.deepEqual(await walked({ limit: 3, order: "asc" }), ids);
    await dropped(ids);
  },

  async a_remix_has_another_prompt_and_the_same_seed() {
    const client = library();
    const first = await made(client);
    const prompt = "a blue circle moving right on a navy background";
    const remix = await client.videos.remix(first.id, { prompt });
    assert.equal(remix.remixed_from_video_id, first.id);
    assert.equal((await followed(client, remix.id)).video.status, "completed");
    assert.deepEqual([remix.prompt, remix.seed], [prompt, first.seed]);
  },

  async a_video_is_deleted_finished_or_not() {
    const client = library({ maxRetries: 5 });
    const done = await made(client);
    const gone = await client.videos.delete(done.id);
    assert.deepEqual([gone.id, gone.deleted, gone.object], [done.id, true, "video.deleted"]);
    await refused(OpenAI.NotFoundError, "video_not_found", "video_id", () => client.videos.retrieve(done.id));
    // While it is being made the server answers 409, which the package repeats until the worker has stopped.
    const long = await client.videos.create(wish({ num_frames: 65, size: "128x128", steps: 100 }));
    const deadline = Date.now() + DEADLINE_MS;
    while ((await client.videos.retrieve(long.id)).status === "queued" && Date.now() < deadline) await pause(100);
    assert.equal((await client.videos.delete(long.id)).deleted, true);
    await refused(OpenAI.NotFoundError, "video_not_found", "video_id", () => client.videos.retrieve(long.id));
  },

  async what_is_refused_says_why() {
    const client = library();
    const create = (more) => () => client.videos.create(wish(more));
    const { BadRequestError, NotFoundError } = OpenAI;
    await refused(BadRequestError, "invalid_request", "prompt", create({ prompt: "" }));
    await refused(BadRequestError, "invalid_request", "size", create({ size: "wide" }));
    await refused(BadRequestError, "invalid_request", "seconds", create({ num_frames: undefined, seconds: "soon" }));
    await refused(BadRequestError, "unknown_model", "model", create({ model: "sora-2" }));
    await refused(BadRequestError, "unknown_field", "sieze", create({ sieze: "64x64" }));
    await refused(BadRequestError, "image_required", "input_reference", create({ model: "tiny-i2v-a14b" }));
    await refused(NotFoundError, "video_not_found", "video_id", () => client.videos.retrieve("nobody"));
    await refused(NotFoundError, "video_not_found", "video_id", () => client.videos.delete("nobody"));
    await refused(NotFoundError, "video_not_found", "video_id", () => client.videos.downloadContent("nobody"));
    await refused(NotFoundError, "video_not_found", "video_id", () => client.videos.remix("nobody", { prompt: PROMPT }));
    await refused(BadRequestError, "invalid_request", "limit", async () => await client.videos.list({ limit: 0 }));
    const waiting = await client.videos.create(wish({ num_frames: 65, size: "128x128", steps: 100 }));
    await refused(NotFoundError, "video_not_ready", "video_id", () => client.videos.downloadContent(waiting.id));
    await refused(NotFoundError, "video_not_ready", "video_id", () => client.videos.remix(waiting.id, { prompt: PROMPT }));
    await library({ maxRetries: 5 }).videos.delete(waiting.id);
  },

  async keys_are_checked() {
    const { AuthenticationError, PermissionDeniedError, RateLimitError } = OpenAI;
    const wrong = library({ apiKey: "wrong" });
    await refused(AuthenticationError, "unauthorized", null, async () => await wrong.videos.list());
    const reader = library({ apiKey: given.keys.reader });
    await refused(PermissionDeniedError, "scope_missing", null, () => reader.videos.create(wish()));
    const slow = library({ apiKey: given.keys.slow_js });
    await slow.models.list();
    const late = await refused(RateLimitError, "rate_limited", null, async () => await slow.models.list());
    assert.ok(Number(late.headers.get("retry-after")) > 0);
  },

  async one_click_is_one_task_whatever_happens_to_the_answers() {
    for (const faults of ["500", "502", "503", "drop", "502,drop"]) {
      const asked = wish();
      const video = await behind(faults).videos.create(asked);
      assert.equal(video.seed, asked.seed);
      assert.equal(await count(asked.seed), 1, faults);
      await dropped([video.id]);
    }
  },

  async a_remix_is_one_task_as_well() {
    const first = await made(library());
    const remix = await behind("drop").videos.remix(first.id, { prompt: "a green circle moving left on a gray background" });
    assert.equal(remix.remixed_from_video_id, first.id);
    assert.equal(await count(first.seed), 2);
  },

  async two_clicks_are_two_tasks() {
    const asked = wish();
    const ids = [await library().videos.create(asked), await library().videos.create(asked)].map((video) => video.id);
    assert.notEqual(ids[0], ids[1]);
    assert.equal(await count(asked.seed), 2);
    await dropped(ids);
  },

  async a_click_that_gets_no_answer_at_all_ends_with_an_error_and_one_task() {
    for (const [faults, kind] of [["503,503,503", OpenAI.InternalServerError], ["drop,drop,drop", OpenAI.APIConnectionError]]) {
      const asked = wish();
      await assert.rejects(async () => await behind(faults).videos.create(asked), kind);
      assert.equal(await count(asked.seed), 1, faults);
    }
  },

  async models_are_listed() {
    const ids = [];
    for await (const model of library().models.list()) ids.push(model.id);
    assert.ok(ids.includes(MODEL));
    assert.equal((await library().models.retrieve(MODEL)).owned_by, "wan22");
    await refused(OpenAI.NotFoundError, "unknown_model", "model", () => library().models.retrieve("sora-2"));
  },
};

// All at once: most of their time is waiting.
const results = await Promise.all(
  Object.entries(cases).map(async ([name, run]) => [name, await run().then(() => null, (error) => `${error?.stack ?? error}`)]),
);
console.log(JSON.stringify(Object.fromEntries(results)));
