"""Routes that change what users do with videos: favourites, tags and boards, one video or many at once."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backend.api.gallery.selection import VideoId
from backend.api.gallery.shapes import VideoMetadata, video_metadata
from backend.api.http.deps import OutputId, ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message
from backend.core.errors.lookups import OutputNotFound
from backend.core.errors.requests import InvalidRequest
from backend.store.gallery.marks import MAX_TAGS, Board, Marks

router = Routes(prefix="/outputs", tags=["outputs"])
board_routes = Routes(prefix="/boards", tags=["outputs"])

#: Most videos that one request changes.
MAX_BULK: Final = 1000

Tags = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_TAGS)]
BoardId = Annotated[str, Path(max_length=64, description="Id of the board")]
_ABSENT = refusals({404: "There is no such board"})


def _plain_name(text: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise ValueError("must have visible characters only")
    return name


class MarksBody(BaseModel):
    """Marks to change; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    favourite: bool | None = None
    board_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]{0,64}$", description="Id of a board; an empty text takes it off its board"
    )
    tags: Tags | None = Field(None, description="All tags that it has from now on")
    add_tags: Tags = []
    remove_tags: Tags = []

    def marks(self) -> Marks:
        """Return the change.

        Raises:
            InvalidRequest: the tags are set and changed at once.
        """
        if self.tags is not None and (self.add_tags or self.remove_tags):
            raise InvalidRequest("Send `tags`, or `add_tags` and `remove_tags`", details={"field": "tags"})
        return Marks(
            favourite=self.favourite,
            board=self.board_id,
            tags=None if self.tags is None else tuple(self.tags),
            add_tags=tuple(self.add_tags),
            remove_tags=tuple(self.remove_tags),
        )


class BulkAction(StrEnum):
    """What can be done to many videos."""

    MARK = "mark"
    TRASH = "trash"
    RESTORE = "restore"
    DELETE = "delete"


class BulkBody(MarksBody):
    """Something to do to many videos."""

    ids: list[VideoId] = Field(min_length=1, max_length=MAX_BULK)
    action: BulkAction = Field(
        BulkAction.MARK,
        description="`mark` sets the other fields; `trash`; `restore`; `delete` for good, also from the gallery",
    )


class BulkResult(Message):
    """What was done."""

    changed: list[str] = Field(description="Ids of the videos that it was done to")
    missing: list[str] = Field(description="Ids of the others: they are unknown, or where the action does not apply")


class Emptied(Message):
    """How many videos are gone."""

    deleted: int


class BoardName(BaseModel):
    """A name for a board."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain_name)]


class BoardInfo(BaseModel):
    """A board."""

    id: str
    name: str
    videos: int = Field(description="Videos on it, without those in the trash")


class BoardList(BaseModel):
    """All boards, by name."""

    boards: list[BoardInfo]


@router.patch("/{output_id}", summary="Change a video's marks")
def mark(output_id: OutputId, body: MarksBody, services: ServicesDep) -> VideoMetadata:
    """Make a video a favourite or not, put it on a board, change its tags."""
    if not services.marks.mark([output_id], body.marks()):
        raise OutputNotFound
    return video_metadata(services.gallery.of([output_id])[0], services)


@router.post("/bulk", summary="Change many videos at once")
def bulk(body: BulkBody, services: ServicesDep) -> BulkResult:
    """Mark, trash, restore or delete many videos; unknown ids are passed over and named in the answer.

    Each change is one transaction, except for `delete`, which removes files one after the other.
    """
    marks = body.marks()
    if body.action is not BulkAction.MARK and marks != Marks():
        raise InvalidRequest("Marks are changed by the action `mark` alone", details={"field": "action"})
    wanted = list(dict.fromkeys(body.ids))
    if body.action is BulkAction.MARK:
        changed = services.marks.mark(wanted, marks)
    elif body.action is BulkAction.RESTORE:
        changed = services.marks.restore(wanted)
    else:
        changed = services.deletion.delete_many(wanted, permanent=body.action is BulkAction.DELETE)
    done = set(changed)
    count = f"{len(done)} video{'' if len(done) == 1 else 's'} changed"
    return BulkResult(
        message=count,
        changed=[one for one in wanted if one in done],
        missing=[one for one in wanted if one not in done],
    )


@router.post("/trash/empty", summary="Empty the trash")
def empty_trash(services: ServicesDep) -> Emptied:
    """Delete everything in the trash for good."""
    deleted = services.deletion.empty_trash()
    return Emptied(message=f"{deleted} video{'' if deleted == 1 else 's'} deleted for good", deleted=deleted)


@board_routes.get("", summary="The boards")
def boards(services: ServicesDep) -> BoardList:
    """List all boards with the number of their videos."""
    return BoardList(boards=[_info(board) for board in services.marks.boards()])


@board_routes.create("", summary="Make a board")
def add_board(body: BoardName, services: ServicesDep) -> BoardInfo:
    """Make an empty board; its name must be free."""
    return _info(services.marks.add_board(body.name))


@board_routes.patch("/{board_id}", summary="Rename a board", responses=_ABSENT)
def rename_board(board_id: BoardId, body: BoardName, services: ServicesDep) -> BoardInfo:
    """Give a board another name."""
    return _info(services.marks.rename_board(board_id, body.name))


@board_routes.delete("/{board_id}", summary="Delete a board", responses=_ABSENT)
def delete_board(board_id: BoardId, services: ServicesDep) -> Message:
    """Delete a board; its videos stay in the gallery."""
    services.marks.delete_board(board_id)
    return Message(message="Board deleted")


def _info(board: Board) -> BoardInfo:
    return BoardInfo(id=board.id, name=board.name, videos=board.videos)
