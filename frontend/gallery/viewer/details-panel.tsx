/** Everything known of a clip, in plain words, and everything that can be begun with it. */

import {
  Copy,
  Download,
  EllipsisVertical,
  FastForward,
  FolderInput,
  ImageDown,
  ShieldCheck,
  Shuffle,
  Tag,
  TriangleAlert,
} from "lucide-react";
import type { ReactNode, RefObject } from "react";
import { bytes, moment } from "@/app/format";
import { makeAgain } from "@/tasks/replay-check";
import { Button, IconButton } from "@/ui/button";
import { ActionMenu, type Entry } from "@/ui/menu";
import { Badge, Note } from "@/ui/status";
import { say } from "@/ui/toasts";
import type { Actions } from "../actions";
import type { Video } from "../grid/details";
import { useBoards } from "../lists";
import { downloadOf, save } from "../media";
import { openGalleryWindow } from "../windows";
import { pictureOf, seeked } from "./frames";
import { lorasOf, phasesOf, type Row, resultOf, rungsOf, runOf, settingsOf, tookInWords } from "./receipt";

type DetailsPanelProps = {
  video: Video;
  player: RefObject<HTMLVideoElement | null>;
  actions: Actions;
  allowed: boolean;
};

async function copy(text: string, what: string) {
  try {
    await navigator.clipboard.writeText(text);
    say({ title: `${what} copied` });
  } catch {
    say({ title: "The browser does not let this page copy", urgent: true });
  }
}

export function DetailsPanel({ video, player, actions, allowed }: DetailsPanelProps) {
  const { data: boards } = useBoards();
  const board = boards?.find((one) => one.id === video.board_id)?.name;
  const known = Object.keys(video.generation_params).length > 0;
  const phases = phasesOf(video);
  const rungs = rungsOf(video);
  const loras = lorasOf(video);
  const frames = resultOf(video).frames_sha256;
  return (
    <aside
      aria-label="Details"
      data-testid="details-panel"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
      tabIndex={0}
      className="space-y-5 border-edge bg-panel px-4 py-4 max-lg:border-t lg:w-96 lg:shrink-0 lg:overflow-y-auto lg:border-l"
    >
      <section className="space-y-2">
        <div className="flex items-start gap-2">
          <h2 className="flex-1 leading-snug font-medium break-words">{video.prompt || "Without a prompt"}</h2>
          <IconButton
            size="small"
            icon={Copy}
            label="Copy the prompt"
            onClick={() => void copy(video.prompt, "Prompt")}
          />
        </div>
        <p className="text-soft">
          {video.created_at && moment(video.created_at)} · took {tookInWords(video)}
        </p>
        {video.mock && <Note tone="warn">This is a mock: no model made it. {video.mock_reason}</Note>}
        {video.instead_of && (
          <Note tone="warn" testId="instead-of">
            Asked for {video.instead_of}, made by {video.model}.
          </Note>
        )}
        {(video.warnings ?? [])
          .filter((one) => one !== video.mock_reason)
          .map((warning) => (
            <p key={warning} className="flex gap-1.5 text-warn">
              <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0" />
              <span className="min-w-0 break-words">{warning}</span>
            </p>
          ))}
      </section>
      {!video.trashed_at && (
        <section aria-label="Begin with this clip" className="flex flex-wrap gap-1.5">
          <Button size="small" kind="primary" icon={Copy} disabled={!known} onClick={() => actions.reuse(video)}>
            Reuse settings
          </Button>
          <Button
            size="small"
            icon={Shuffle}
            disabled={!allowed || !known}
            onClick={() => openGalleryWindow({ kind: "vary", video })}
          >
            Vary
          </Button>
          <Button
            size="small"
            icon={FastForward}
            disabled={!allowed}
            onClick={() => openGalleryWindow({ kind: "extend", video })}
          >
            Go on from here
          </Button>
          <Button size="small" icon={Download} onClick={() => save(downloadOf(video, true))}>
            Download
          </Button>
          <More video={video} player={player} actions={actions} allowed={allowed} known={known} />
        </section>
      )}
      <section className="space-y-1.5">
        <Heading>Marks</Heading>
        <div className="flex flex-wrap items-center gap-1.5">
          {board && <Badge tone="accent">{board}</Badge>}
          {(video.tags ?? []).map((tag) => (
            <Badge key={tag}>#{tag}</Badge>
          ))}
          <Button
            size="small"
            kind="quiet"
            icon={Tag}
            disabled={!allowed}
            onClick={() => openGalleryWindow({ kind: "tags", ids: [video.id] })}
          >
            Tags
          </Button>
          <Button
            size="small"
            kind="quiet"
            icon={FolderInput}
            disabled={!allowed}
            onClick={() => openGalleryWindow({ kind: "board", ids: [video.id] })}
          >
            Board
          </Button>
        </div>
      </section>
      <section>
        <Heading>Asked and made</Heading>
        <Rows rows={settingsOf(video)} />
        {Boolean(video.generation_params.negative_prompt) && (
          <p className="mt-1.5 break-words text-soft">Not wanted: {String(video.generation_params.negative_prompt)}</p>
        )}
      </section>
      {loras.length > 0 && (
        <section>
          <Heading>LoRAs</Heading>
          <ul className="space-y-1.5">
            {loras.map((lora) => (
              <li key={lora.id}>
                <span className="font-medium">{lora.id}</span>{" "}
                <span className={lora.applied ? "text-good" : "text-warn"}>{lora.text}</span>
                {lora.notes.map((note) => (
                  <p key={note} className="text-xs text-soft">
                    {note}
                  </p>
                ))}
              </li>
            ))}
          </ul>
        </section>
      )}
      {phases.length > 0 && (
        <section>
          <Heading>Seconds by phase</Heading>
          <dl className="space-y-1">
            {phases.map((phase) => (
              <div key={phase.label} className="grid grid-cols-[9.5rem_1fr_3.5rem] items-center gap-2">
                <dt className="text-soft">{phase.label}</dt>
                <dd aria-hidden className="h-1.5 rounded-full bg-raised">
                  <div
                    className="h-full rounded-full bg-accent"
                    style={{ width: `${Math.max(1, phase.share * 100)}%` }}
                  />
                </dd>
                <dd className="text-right tabular-nums">{phase.seconds.toFixed(phase.seconds < 10 ? 2 : 0)} s</dd>
              </div>
            ))}
          </dl>
        </section>
      )}
      <section>
        <Heading>How it ran</Heading>
        {rungs.map((sentence) => (
          <p key={sentence} className="mb-1 text-warn">
            {sentence}
          </p>
        ))}
        <Rows rows={runOf(video)} />
      </section>
      <section>
        <Heading>File</Heading>
        <Rows
          rows={[
            { label: "Size", value: bytes(video.size_bytes) },
            ...(video.quality ? [{ label: "Check of the frames", value: video.quality }] : []),
            { label: "SHA-256", value: video.sha256 },
            ...(typeof frames === "string" ? [{ label: "SHA-256 of the frames", value: frames }] : []),
          ]}
        />
      </section>
    </aside>
  );
}

type MoreProps = DetailsPanelProps & { known: boolean };

function More({ video, player, actions, allowed, known }: MoreProps) {
  const shown = async () => {
    if (!player.current) throw new Error("The clip has not come yet.");
    player.current.pause();
    await seeked(player.current);
    return await pictureOf(player.current);
  };
  const entries: Entry[] = [
    { label: "Reuse the prompt", icon: Copy, disabled: !known, run: () => actions.reuse(video, "prompt") },
    { label: "Reuse the seed", icon: Copy, disabled: !known, run: () => actions.reuse(video, "seed") },
    { label: "Reuse size and length", icon: Copy, disabled: !known, run: () => actions.reuse(video, "size") },
    {
      label: "Check: make it again",
      icon: ShieldCheck,
      disabled: !allowed || !known || video.mock,
      run: () => void makeAgain(video),
    },
    "line",
    {
      label: "This frame as start image",
      icon: ImageDown,
      disabled: !allowed,
      run: () => void actions.frameAs("image", shown),
    },
    {
      label: "This frame as end image",
      icon: ImageDown,
      disabled: !allowed,
      run: () => void actions.frameAs("end_image", shown),
    },
    {
      label: "Last frame as start image",
      icon: ImageDown,
      disabled: !allowed,
      run: () => void actions.frameAs("image", actions.frameOfFile(video, video.num_frames - 1)),
    },
    "line",
    ...(video.has_latents
      ? [
          {
            label: "Make another file",
            disabled: !allowed,
            run: () => openGalleryWindow({ kind: "redecode" as const, video }),
          },
        ]
      : []),
    { label: "Download without the record", icon: Download, run: () => save(downloadOf(video, false)) },
    { label: "Copy the id", icon: Copy, run: () => void copy(video.id, "Id") },
  ];
  return (
    <ActionMenu
      trigger={<IconButton size="small" icon={EllipsisVertical} label="More with this clip" data-testid="clip-menu" />}
      entries={entries}
    />
  );
}

function Heading({ children }: { children: ReactNode }) {
  return <h3 className="mb-1.5 text-xs font-semibold text-soft">{children}</h3>;
}

function Rows({ rows }: { rows: Row[] }) {
  return (
    <dl className="space-y-1">
      {rows.map(({ label, value, asked }) => (
        <div key={label} className="grid grid-cols-[9.5rem_1fr] gap-2">
          <dt className="text-soft">{label}</dt>
          <dd className="min-w-0 break-words">
            {asked && asked !== value && <span className="text-warn">{asked} → </span>}
            {value}
          </dd>
        </div>
      ))}
    </dl>
  );
}
