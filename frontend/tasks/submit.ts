/** Sends the form: one click is one task, also when the answer is lost and the page asks again. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { counted } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import { say } from "@/ui/toasts";
import { type Body, useDraft } from "./draft";

/** Pause after the last change before the server is asked, in milliseconds. */
const TYPING_PAUSE = 350;
const ATTEMPTS = 4;

export function useModels() {
  return useQuery({ queryKey: KEYS.models, queryFn: () => data(api.GET("/api/v1/models")) });
}

/** The value, once it has not changed for a while. */
function useSettled<T>(value: T, pause: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), pause);
    return () => clearTimeout(timer);
  }, [value, pause]);
  return settled;
}

/** What the request would take and become, asked while somebody types; the last answer stays until the next one. */
export function useEstimate(body: Body) {
  const text = useSettled(JSON.stringify(body), TYPING_PAUSE);
  const asked = JSON.parse(text) as Body;
  return useQuery<Schemas["Estimated"]>({
    queryKey: ["estimate", text],
    queryFn: ({ signal }) => data(api.POST("/api/v1/generation/estimate", { body: asked as never, signal })),
    enabled: asked.prompt.trim() !== "",
    placeholderData: (before) => before,
    retry: false,
    gcTime: 60_000,
  });
}

type Asked = { body: Body; first: boolean };

export function useSubmit() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: async ({ body, first }: Asked) => {
      // The id makes a repetition after a lost answer the same task.
      const request = { ...body, client_request_id: crypto.randomUUID(), priority: first ? "high" : "normal" };
      const answer = (await persistently(() =>
        data(api.POST("/api/v1/generation/submit", { body: request as never })),
      )) as Schemas["Submitted"];
      if (first && answer.queue_position && answer.queue_position > 1) {
        const path = { task_id: answer.task_id };
        await data(api.POST("/api/v1/queue/{task_id}/move", { params: { path }, body: { position: 1 } }));
      }
      return answer;
    },
    onSuccess: (answer) => {
      say({ title: `Queued ${counted(answer.task_ids.length, "clip")}`, text: answer.adjustments[0] });
      void cache.invalidateQueries({ queryKey: KEYS.queue });
      void cache.invalidateQueries({ queryKey: ["prompts"] });
    },
  });
}

/** Repeats a call as long as nobody answers it. */
async function persistently<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (asProblem(error).status !== 0 || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

/** Stores an image file on the server and returns what a request names. */
export async function storeImage(file: Blob): Promise<Schemas["StoredInput"]> {
  const form = new FormData();
  form.append("image", file, file instanceof File ? file.name : "image.png");
  return await data(api.POST("/api/v1/inputs", { body: form as never, bodySerializer: () => form }));
}

/** Whether the form has something to send. */
export function useReady(): boolean {
  return useDraft((draft) => draft.prompt.trim() !== "");
}
