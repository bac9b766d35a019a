/** Everything that can be begun with a clip, as functions for menus, keys and buttons alike. */

import { useNavigate } from "@tanstack/react-router";
import {
  Columns2,
  Copy,
  Download,
  Eye,
  FastForward,
  FileVideo,
  FolderInput,
  Heart,
  HeartOff,
  ImageDown,
  RotateCcw,
  Shuffle,
  Tag,
  Trash2,
} from "lucide-react";
import { useShown } from "@/app/commands";
import { asProblem } from "@/http/client";
import { type Part, recall, type Slot, setImage } from "@/tasks/draft";
import { storeImage } from "@/tasks/submit";
import type { Entry } from "@/ui/menu";
import { say } from "@/ui/toasts";
import type { Deeds } from "./deeds";
import { details, type Video } from "./grid/details";
import { downloadOf, fileOf, save } from "./media";
import { frameOf } from "./viewer/frames";
import { openGalleryWindow } from "./windows";

export function useActions(deeds: Deeds) {
  const navigate = useNavigate();

  /** Favourites, unless all of them are. */
  function favourite(ids: string[]) {
    deeds.favourite(
      ids,
      ids.some((id) => !details.get(id)?.favourite),
    );
  }

  function reuse(video: Video, part: Part = "all") {
    recall(video.generation_params, part);
    void navigate({ to: "/" });
  }

  function compare(a: string, b: string) {
    void navigate({ to: "/compare", search: { a, b } });
  }

  /** Puts a frame into the form; `picture` draws it. */
  async function frameAs(slot: Slot, picture: () => Promise<Blob>) {
    try {
      setImage(slot, await storeImage(await picture()));
      const title = slot === "image" ? "The frame is the start image" : "The frame is the end image";
      say({ title, action: { label: "Go to Create", run: () => void navigate({ to: "/" }) } });
    } catch (error) {
      say({ title: error instanceof Error ? error.message : asProblem(error).message, urgent: true });
    }
  }

  function frameOfFile(video: Video, frame: number) {
    return () => frameOf(fileOf(video), video, frame);
  }

  return { ...deeds, favourite, reuse, compare, frameAs, frameOfFile };
}

export type Actions = ReturnType<typeof useActions>;

type Around = {
  actions: Actions;
  /** Whether this session may change anything. */
  allowed: boolean;
  open?: (id: string) => void;
  /** The clip beside one, for a comparison. */
  beside: (id: string) => string;
};

/** Makes the menu of a clip, or of all selected ones. */
export function useEntries({ actions, allowed, open, beside }: Around) {
  const keys = {
    favourite: useShown("gallery.favourite"),
    trash: useShown("gallery.trash"),
    tag: useShown("gallery.tag"),
    board: useShown("gallery.board"),
    compare: useShown("gallery.compare"),
  };

  return function entriesOf(ids: string[]): Entry[] {
    const first = details.get(ids[0] ?? "");
    if (!first) return [];
    const one = ids.length === 1 ? first : null;
    const all = ids.every((id) => details.get(id)?.favourite);
    if (first.trashed_at) {
      return [
        ...(one && open ? [{ label: "Open", icon: Eye, run: () => open(one.id) }] : []),
        { label: "Restore", icon: RotateCcw, disabled: !allowed, run: () => actions.restore.mutate(ids) },
        "line",
        {
          label: "Delete for good",
          icon: Trash2,
          danger: true,
          disabled: !allowed,
          run: () => openGalleryWindow({ kind: "delete", ids }),
        },
      ];
    }
    const marks: Entry[] = [
      {
        label: all ? "Take off the favourites" : "Add to the favourites",
        icon: all ? HeartOff : Heart,
        shortcut: keys.favourite,
        disabled: !allowed,
        run: () => actions.favourite(ids),
      },
      {
        label: "Tags",
        icon: Tag,
        shortcut: keys.tag,
        disabled: !allowed,
        run: () => openGalleryWindow({ kind: "tags", ids }),
      },
      {
        label: "Put on a board",
        icon: FolderInput,
        shortcut: keys.board,
        disabled: !allowed,
        run: () => openGalleryWindow({ kind: "board", ids }),
      },
    ];
    const end: Entry[] = [
      "line",
      {
        label: "Move to the trash",
        icon: Trash2,
        shortcut: keys.trash,
        danger: true,
        disabled: !allowed,
        run: () => actions.trash.mutate(ids),
      },
    ];
    const [a, b] = ids;
    if (!one) {
      const both: Entry[] =
        a && b && ids.length === 2
          ? [{ label: "Compare", icon: Columns2, shortcut: keys.compare, run: () => actions.compare(a, b) }]
          : [];
      return [...marks, ...both, ...end];
    }
    const known = Object.keys(one.generation_params).length > 0;
    const makes: Entry[] = [
      { label: "Reuse settings", icon: Copy, disabled: !known, run: () => actions.reuse(one) },
      {
        label: "Vary",
        icon: Shuffle,
        disabled: !allowed || !known,
        run: () => openGalleryWindow({ kind: "vary", video: one }),
      },
      {
        label: "Go on from here",
        icon: FastForward,
        disabled: !allowed,
        run: () => openGalleryWindow({ kind: "extend", video: one }),
      },
      ...(one.has_latents
        ? [
            {
              label: "Make another file",
              icon: FileVideo,
              disabled: !allowed,
              run: () => openGalleryWindow({ kind: "redecode", video: one }),
            },
          ]
        : []),
      {
        label: "First frame as start image",
        icon: ImageDown,
        disabled: !allowed,
        run: () => void actions.frameAs("image", actions.frameOfFile(one, 0)),
      },
      {
        label: "Last frame as start image",
        icon: ImageDown,
        disabled: !allowed,
        run: () => void actions.frameAs("image", actions.frameOfFile(one, one.num_frames - 1)),
      },
    ];
    const other = beside(one.id);
    return [
      ...(open ? [{ label: "Open", icon: Eye, run: () => open(one.id) }] : []),
      ...marks,
      "line",
      ...makes,
      "line",
      { label: "Compare with the next", icon: Columns2, disabled: !other, run: () => actions.compare(one.id, other) },
      { label: "Download", icon: Download, run: () => save(downloadOf(one, true)) },
      { label: "Download without the record", icon: Download, run: () => save(downloadOf(one, false)) },
      ...end,
    ];
  };
}
