/** What can be done to all selected clips, at the lower edge while there are some. */

import { Columns2, FolderInput, Heart, RotateCcw, Tag, Trash2, X } from "lucide-react";
import { useShown } from "@/app/commands";
import { Button, IconButton } from "@/ui/button";

type BulkBarProps = {
  count: number;
  trash: boolean;
  onFavourite: () => void;
  onTag: () => void;
  onBoard: () => void;
  onCompare: () => void;
  onTrash: () => void;
  onRestore: () => void;
  onDelete: () => void;
  onNone: () => void;
};

export function BulkBar({ count, trash, ...on }: BulkBarProps) {
  const keys = {
    favourite: useShown("gallery.favourite"),
    tag: useShown("gallery.tag"),
    board: useShown("gallery.board"),
    compare: useShown("gallery.compare"),
    trash: useShown("gallery.trash"),
    none: useShown("gallery.none"),
  };
  if (count === 0) return null;
  return (
    <div
      role="toolbar"
      aria-label="Selected clips"
      data-testid="bulk-bar"
      className="absolute bottom-3 left-1/2 z-20 flex max-w-[calc(100%-1.5rem)] -translate-x-1/2 items-center gap-0.5 rounded-xl border border-control bg-panel py-1.5 pr-1.5 pl-3 shadow-lg"
    >
      <p role="status" className="mr-1 font-medium whitespace-nowrap tabular-nums">
        {count.toLocaleString()} <span className="max-sm:sr-only">selected</span>
      </p>
      {trash ? (
        <>
          <Button size="small" icon={RotateCcw} onClick={on.onRestore}>
            Restore
          </Button>
          <IconButton icon={Trash2} label="Delete for good" onClick={on.onDelete} />
        </>
      ) : (
        <>
          <IconButton icon={Heart} label="Favourite" shortcut={keys.favourite} onClick={on.onFavourite} />
          <IconButton icon={Tag} label="Tags" shortcut={keys.tag} onClick={on.onTag} />
          <IconButton icon={FolderInput} label="Put on a board" shortcut={keys.board} onClick={on.onBoard} />
          <IconButton
            icon={Columns2}
            label="Compare two"
            shortcut={keys.compare}
            disabled={count !== 2}
            onClick={on.onCompare}
          />
          <IconButton icon={Trash2} label="Move to the trash" shortcut={keys.trash} onClick={on.onTrash} />
        </>
      )}
      <IconButton icon={X} label="Select nothing" shortcut={keys.none} onClick={on.onNone} />
    </div>
  );
}
