/** What can be done to clips, one or many: shown at once, with a way back, and told when the server refused. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { counted } from "@/app/format";
import { api, asProblem, data, type Schemas } from "@/http/client";
import { say } from "@/ui/toasts";
import { details, type Video } from "./grid/details";
import { hideFromLists, refreshLists } from "./lists";
import { letGo } from "./selection";

/** Most clips that the server changes in one request. */
const PORTION = 1000;

type Bulk = Partial<Schemas["BulkBody"]>;
type Change = Bulk & { ids: string[] };

export function clips(count: number): string {
  return counted(count, "clip");
}

async function send({ ids, ...what }: Change): Promise<string[]> {
  const changed: string[] = [];
  for (let start = 0; start < ids.length; start += PORTION) {
    const body = { ...what, ids: ids.slice(start, start + PORTION) } as Schemas["BulkBody"];
    changed.push(...(await data(api.POST("/api/v1/outputs/bulk", { body }))).changed);
  }
  return changed;
}

function refused(error: unknown) {
  const { message, suggestions } = asProblem(error);
  say({ title: message, text: suggestions[0], urgent: true });
}

/** The change as it looks on a clip before the server has answered. */
function marked(video: Video, what: Bulk): Video {
  const added = [...(video.tags ?? []), ...(what.add_tags ?? [])];
  const tags = what.tags ?? [...new Set(added)].filter((tag) => !what.remove_tags?.includes(tag));
  const board_id = what.board_id == null ? video.board_id : what.board_id || null;
  return { ...video, favourite: what.favourite ?? video.favourite, tags, board_id };
}

export function useDeeds() {
  const cache = useQueryClient();
  const settled = () => refreshLists(cache);

  const bulk = useMutation({
    mutationFn: send,
    onError: (error, { ids }) => {
      refused(error);
      for (const id of ids) details.refresh(id);
    },
    onSettled: settled,
  });

  function mark(ids: string[], what: Bulk, title?: string, back?: () => void) {
    details.change(ids, (video) => marked(video, what));
    bulk.mutate(
      { ...what, ids },
      { onSuccess: () => title && say({ title, action: back && { label: "Undo", run: back } }) },
    );
  }

  function favourite(ids: string[], on: boolean) {
    const changed = ids.filter((id) => details.get(id)?.favourite !== on);
    const title = on
      ? `${clips(changed.length)} added to the favourites`
      : `${clips(changed.length)} taken off the favourites`;
    if (changed.length) mark(changed, { favourite: on }, title, () => mark(changed, { favourite: !on }));
  }

  function tag(ids: string[], add: string[], remove: string[] = []) {
    const before = new Map(ids.map((id) => [id, details.get(id)?.tags ?? []]));
    const title = add.length ? `Tagged ${clips(ids.length)}: ${add.join(", ")}` : `Tag removed: ${remove.join(", ")}`;
    mark(ids, { add_tags: add, remove_tags: remove }, title, () => {
      // Each goes back to what it had; those that had a tag before keep it.
      for (const [id, tags] of before) mark([id], { tags });
    });
  }

  function board(ids: string[], board: { id: string; name: string } | null) {
    const before = new Map<string, string[]>();
    for (const id of ids) {
      const on = details.get(id)?.board_id ?? "";
      before.set(on, [...(before.get(on) ?? []), id]);
    }
    const title = board ? `${clips(ids.length)} put on “${board.name}”` : `${clips(ids.length)} taken off the board`;
    mark(ids, { board_id: board?.id ?? "" }, title, () => {
      for (const [id, some] of before) mark(some, { board_id: id });
    });
  }

  const restore = useMutation({
    mutationFn: (ids: string[]) => send({ ids, action: "restore" }),
    onMutate: (ids) => letGo(ids),
    onSuccess: (changed) => {
      for (const id of changed) details.refresh(id);
      say({ title: `${clips(changed.length)} restored` });
    },
    onError: refused,
    onSettled: settled,
  });

  const trash = useMutation({
    mutationFn: (ids: string[]) => send({ ids, action: "trash" }),
    onMutate: (ids) => {
      hideFromLists(cache, ids);
      letGo(ids);
    },
    onSuccess: (changed) =>
      say({
        title: `${clips(changed.length)} moved to the trash`,
        action: { label: "Undo", run: () => restore.mutate(changed) },
      }),
    onError: refused,
    onSettled: settled,
  });

  const remove = useMutation({
    mutationFn: (ids: string[]) => send({ ids, action: "delete" }),
    onMutate: (ids) => {
      hideFromLists(cache, ids);
      letGo(ids);
    },
    onSuccess: (changed) => say({ title: `${clips(changed.length)} deleted for good` }),
    onError: refused,
    onSettled: settled,
  });

  const emptyTrash = useMutation({
    mutationFn: () => data(api.POST("/api/v1/outputs/trash/empty")),
    onSuccess: ({ message }) => say({ title: message }),
    onError: refused,
    onSettled: settled,
  });

  const addBoard = useMutation({
    mutationFn: (name: string) => data(api.POST("/api/v1/boards", { body: { name } })),
    onSettled: settled,
  });
  const renameBoard = useMutation({
    mutationFn: ({ id, name }: { id: string; name: string }) =>
      data(api.PATCH("/api/v1/boards/{board_id}", { params: { path: { board_id: id } }, body: { name } })),
    onSettled: settled,
  });
  const deleteBoard = useMutation({
    mutationFn: (id: string) => data(api.DELETE("/api/v1/boards/{board_id}", { params: { path: { board_id: id } } })),
    onSuccess: () => say({ title: "Board deleted", text: "Its clips stay in the gallery." }),
    onError: refused,
    onSettled: settled,
  });

  return { favourite, tag, board, trash, restore, remove, emptyTrash, addBoard, renameBoard, deleteBoard };
}

export type Deeds = ReturnType<typeof useDeeds>;
