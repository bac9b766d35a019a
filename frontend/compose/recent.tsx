/** What comes of the form: the running clip with its preview, then the newest clips. On a new server, a first step. */

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Play } from "lucide-react";
import { duration } from "@/app/format";
import { api, data, place, type Schemas } from "@/http/client";
import { KEYS } from "@/http/queries";
import type { Task } from "@/live/reducer";
import { setDraft, useDraft } from "@/tasks/draft";
import { doing, useQueue } from "@/tasks/queue";
import { useSubmit } from "@/tasks/submit";
import { Button } from "@/ui/button";
import { Badge, ProgressBar, Skeleton } from "@/ui/status";

const SHOWN = 12;
/** Prompts that the embedded models understand; they know moving shapes. */
const EXAMPLES = [
  "a red circle moving right on a navy background",
  "a yellow triangle spinning on a teal background",
  "a white ring growing on a pink background",
];

type Video = Schemas["VideoMetadata"];

export function Recent({ quiet }: { quiet: boolean }) {
  const { data: queue } = useQueue();
  const { data: newest } = useQuery({
    queryKey: [...KEYS.outputs, "recent"],
    queryFn: () => data(api.GET("/api/v1/outputs", { params: { query: { limit: SHOWN } } })),
  });
  const running = queue?.tasks.filter((task) => task.status === "processing") ?? [];
  const first = newest?.videos.length === 0 && quiet;
  return (
    <section aria-label="Newest clips" className="min-w-0 flex-1 p-4 lg:overflow-y-auto">
      <h2 className="mb-3 flex h-9 items-center text-base font-semibold">Newest</h2>
      {first ? (
        <FirstRun />
      ) : (
        <ul className="grid grid-cols-[repeat(auto-fill,minmax(min(100%,13rem),1fr))] gap-3">
          {running.map((task) => (
            <li key={task.id}>
              <RunningTile task={task} />
            </li>
          ))}
          {newest ? (
            newest.videos.map((video) => (
              <li key={video.id}>
                <ClipTile video={video} />
              </li>
            ))
          ) : (
            <li>
              <Skeleton className="aspect-square" />
            </li>
          )}
        </ul>
      )}
    </section>
  );
}

function RunningTile({ task }: { task: Task }) {
  return (
    <article
      aria-label={`Running: ${task.prompt}`}
      data-testid="running-clip"
      className="overflow-hidden rounded-xl border border-accent bg-panel"
    >
      <div className="aspect-square bg-raised">
        {task.preview_url && (
          <img
            src={`${place(task.preview_url)}?step=${task.current_step ?? 0}`}
            alt="Preview"
            className="size-full object-cover"
          />
        )}
      </div>
      <div className="space-y-1 p-2.5">
        <p className="line-clamp-1">{task.prompt}</p>
        <ProgressBar value={task.progress_percent} label={`Progress of ${task.prompt}`} />
        <p className="truncate text-xs text-soft">
          {doing(task)}
          {task.estimated_time_remaining != null && ` · ${duration(task.estimated_time_remaining)} left`}
        </p>
      </div>
    </article>
  );
}

function ClipTile({ video }: { video: Video }) {
  return (
    <Link
      to="/gallery"
      search={{ clip: video.id }}
      data-testid="recent-clip"
      className="block overflow-hidden rounded-xl border border-edge bg-panel hover:border-accent"
    >
      <img
        src={place(video.thumbnail_url)}
        alt=""
        loading="lazy"
        className="aspect-square w-full bg-raised object-cover"
      />
      <div className="p-2.5">
        <p className="line-clamp-1">{video.prompt}</p>
        <p className="flex items-center gap-1.5 truncate text-xs text-soft">
          {video.mock && <Badge tone="warn">MOCK</Badge>}
          {video.resolution} · {duration(video.duration_seconds)} · made in {duration(video.generation_seconds)}
        </p>
      </div>
    </Link>
  );
}

function FirstRun() {
  const submit = useSubmit();
  const model = useDraft((draft) => draft.model);
  const start = (prompt: string) => {
    setDraft({ prompt });
    submit.mutate({ body: { prompt, model_type: model }, first: false });
  };
  const [example = "", ...others] = EXAMPLES;
  return (
    <div className="mx-auto max-w-lg space-y-4 py-10 text-center" data-testid="first-run">
      <h3 className="text-2xl font-semibold">Make your first clip</h3>
      <p className="text-soft">
        The models that ship with wan22 are tiny and know moving shapes. They show in seconds that everything works
        here; a full-size model comes from the Models page.
      </p>
      <Button kind="primary" size="large" icon={Play} disabled={submit.isPending} onClick={() => start(example)}>
        {example}
      </Button>
      <ul className="flex flex-wrap justify-center gap-2">
        {others.map((prompt) => (
          <li key={prompt}>
            <Button size="small" onClick={() => setDraft({ prompt })}>
              {prompt}
            </Button>
          </li>
        ))}
      </ul>
    </div>
  );
}
