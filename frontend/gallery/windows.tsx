/** The small windows of the gallery: tags, boards, and the question before something is gone for good. One at a time. */

import { FolderPlus, Trash2 } from "lucide-react";
import { type FormEvent, useState } from "react";
import { create } from "zustand";
import { counted } from "@/app/format";
import { asProblem } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { Button, IconButton } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { TextField } from "@/ui/fields";
import { clips, type Deeds, useDeeds } from "./deeds";
import { details, type Video } from "./grid/details";
import { type Board, useBoards, useTags } from "./lists";
import { MakingWindow } from "./viewer/makings";

type Making = "vary" | "extend" | "redecode";

type Open =
  | { kind: "tags" | "board" | "delete"; ids: string[] }
  | { kind: "empty" }
  | { kind: Making; video: Video }
  | null;

const useGalleryWindow = create<{ open: Open }>(() => ({ open: null }));

export function openGalleryWindow(open: Open): void {
  useGalleryWindow.setState({ open });
}

export function GalleryWindows() {
  const { open } = useGalleryWindow();
  const deeds = useDeeds();
  const close = () => openGalleryWindow(null);
  if (!open) return null;
  switch (open.kind) {
    case "tags":
      return <TagWindow ids={open.ids} deeds={deeds} onClose={close} />;
    case "board":
      return <BoardWindow ids={open.ids} deeds={deeds} onClose={close} />;
    case "delete":
      return (
        <Sure
          title={`Delete ${clips(open.ids.length)} for good?`}
          onClose={close}
          onYes={() => deeds.remove.mutate(open.ids)}
        />
      );
    case "empty":
      return (
        <Sure
          title="Delete everything in the trash for good?"
          onClose={close}
          onYes={() => deeds.emptyTrash.mutate()}
        />
      );
    default:
      return <MakingWindow kind={open.kind} video={open.video} onClose={close} />;
  }
}

function Sure({ title, onClose, onYes }: { title: string; onClose: () => void; onYes: () => void }) {
  return (
    <Dialog
      open
      onClose={onClose}
      title={title}
      description="The files are removed from the disk. There is no way back."
      width="narrow"
      testId="sure"
      footer={
        <>
          <Button onClick={onClose}>Keep</Button>
          <Button
            kind="danger"
            icon={Trash2}
            onClick={() => {
              onYes();
              onClose();
            }}
          >
            Delete for good
          </Button>
        </>
      }
    >
      {null}
    </Dialog>
  );
}

type MarkProps = { ids: string[]; deeds: Deeds; onClose: () => void };

function TagWindow({ ids, deeds, onClose }: MarkProps) {
  const { data: known } = useTags();
  const [text, setText] = useState("");
  const tags = [...new Set(ids.flatMap((id) => details.get(id)?.tags ?? []))].sort();
  const others = (known ?? []).filter((one) => !tags.includes(one.tag)).slice(0, 12);
  function add(event: FormEvent) {
    event.preventDefault();
    const added = text
      .split(",")
      .map((tag) => tag.trim().toLowerCase())
      .filter(Boolean);
    if (added.length) deeds.tag(ids, added);
    onClose();
  }
  const chip = "rounded-full border border-control px-2.5 py-1 hover:bg-raised";
  return (
    <Dialog open onClose={onClose} title={`Tags of ${clips(ids.length)}`} width="narrow" testId="tag-window">
      <form onSubmit={add} className="space-y-3 pb-3">
        <TextField
          label="New tags"
          hint="Several with commas between them"
          autoFocus
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
        {tags.length > 0 && (
          <div>
            <p className="mb-1 text-xs text-soft">They have. Press one to take it off.</p>
            <div className="flex flex-wrap gap-1.5">
              {tags.map((tag) => (
                <button
                  key={tag}
                  type="button"
                  className={chip}
                  aria-label={`Take off the tag ${tag}`}
                  onClick={() => {
                    deeds.tag(ids, [], [tag]);
                    onClose();
                  }}
                >
                  #{tag} <span aria-hidden>×</span>
                </button>
              ))}
            </div>
          </div>
        )}
        {others.length > 0 && (
          <div>
            <p className="mb-1 text-xs text-soft">Used before</p>
            <div className="flex flex-wrap gap-1.5">
              {others.map(({ tag }) => (
                <button
                  key={tag}
                  type="button"
                  className={chip}
                  onClick={() => {
                    deeds.tag(ids, [tag]);
                    onClose();
                  }}
                >
                  #{tag}
                </button>
              ))}
            </div>
          </div>
        )}
        <div className="flex justify-end gap-2">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" disabled={text.trim() === ""}>
            Add
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function BoardWindow({ ids, deeds, onClose }: MarkProps) {
  const { data: boards } = useBoards();
  const [name, setName] = useState("");
  const { addBoard } = deeds;
  const put = (board: { id: string; name: string } | null) => {
    if (ids.length) deeds.board(ids, board);
    onClose();
  };
  const on = new Set(ids.map((id) => details.get(id)?.board_id ?? ""));
  function add(event: FormEvent) {
    event.preventDefault();
    if (name.trim()) addBoard.mutate(name, { onSuccess: put });
  }
  return (
    <Dialog
      open
      onClose={onClose}
      title={ids.length ? `Put ${clips(ids.length)} on a board` : "Boards"}
      description="A clip is on one board at most. Deleting a board keeps its clips."
      width="narrow"
      testId="board-window"
    >
      <div className="space-y-3 pb-3">
        <ul className="space-y-1">
          {(boards ?? []).map((board) => (
            <BoardRow
              key={board.id}
              board={board}
              deeds={deeds}
              chosen={ids.length > 0 && on.has(board.id)}
              onChoose={ids.length ? () => put(board) : undefined}
            />
          ))}
        </ul>
        {ids.length > 0 && [...on].some(Boolean) && (
          <Button size="small" onClick={() => put(null)}>
            Take off the board
          </Button>
        )}
        <form onSubmit={add} className="flex items-end gap-2">
          <div className="flex-1">
            <TextField
              label="New board"
              value={name}
              maxLength={100}
              onChange={(event) => setName(event.target.value)}
              error={addBoard.error ? asProblem(addBoard.error).message : undefined}
            />
          </div>
          <Button type="submit" icon={FolderPlus} disabled={name.trim() === "" || addBoard.isPending}>
            {ids.length ? "Create and put there" : "Create"}
          </Button>
        </form>
      </div>
    </Dialog>
  );
}

type BoardRowProps = { board: Board; deeds: Deeds; chosen: boolean; onChoose?: () => void };

function BoardRow({ board, deeds, chosen, onChoose }: BoardRowProps) {
  const [name, setName] = useState<string | null>(null);
  const { renameBoard, deleteBoard } = deeds;
  if (name !== null) {
    return (
      <li>
        <form
          className="flex items-end gap-2"
          onSubmit={(event) => {
            event.preventDefault();
            renameBoard.mutate({ id: board.id, name }, { onSuccess: () => setName(null) });
          }}
        >
          <div className="flex-1">
            <TextField
              label={`New name of ${board.name}`}
              bare
              autoFocus
              value={name}
              maxLength={100}
              onChange={(event) => setName(event.target.value)}
            />
          </div>
          <Button type="submit" disabled={name.trim() === ""}>
            Rename
          </Button>
          <Button onClick={() => setName(null)}>Cancel</Button>
        </form>
        {renameBoard.error && <ProblemNote error={renameBoard.error} />}
      </li>
    );
  }
  return (
    <li className="flex items-center gap-1 rounded-lg border border-edge pr-1">
      {onChoose ? (
        <button
          type="button"
          className="min-w-0 flex-1 truncate rounded-lg px-3 py-2 text-left hover:bg-raised"
          aria-pressed={chosen}
          onClick={onChoose}
        >
          {board.name} <span className="text-soft">· {counted(board.videos, "clip")}</span>
        </button>
      ) : (
        <span className="min-w-0 flex-1 truncate px-3 py-2">
          {board.name} <span className="text-soft">· {counted(board.videos, "clip")}</span>
        </span>
      )}
      <Button size="small" kind="quiet" aria-label={`Rename ${board.name}`} onClick={() => setName(board.name)}>
        Rename
      </Button>
      <IconButton
        size="small"
        icon={Trash2}
        label={`Delete the board ${board.name}`}
        onClick={() => deleteBoard.mutate(board.id)}
      />
    </li>
  );
}
