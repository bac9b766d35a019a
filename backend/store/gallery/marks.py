"""What users do with finished videos: trash, favourites, tags and boards, for many at once.

Each change of a video is an event of its task, so that clients hear of it as of everything else, and can catch up.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from backend.core.domain import EventType, new_task_id
from backend.core.errors.lookups import BoardExists, BoardNotFound
from backend.core.errors.requests import InvalidRequest
from backend.store.access.ownership import new_owner, seen_by_caller
from backend.store.engine import Database
from backend.store.rows import is_id
from backend.store.tables import boards, database_now, gallery, gallery_tags
from backend.store.transition import append_all

#: Most tags of one video.
MAX_TAGS: Final = 32
MAX_BOARDS: Final = 1000
#: Instead of the moment at which a video was moved into the trash: its deletion has begun, and nothing brings it back.
GIVEN_UP: Final = 0.0
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Board:
    """A named place for videos; each is on one board at most."""

    id: str
    name: str
    videos: int  #: in the gallery, without the trash


@dataclass(frozen=True, slots=True)
class Marks:
    """A change of marks; None leaves one as it is."""

    favourite: bool | None = None
    board: str | None = None  #: id; empty = on no board
    tags: tuple[str, ...] | None = None  #: instead of all that there are
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()


def plain_tag(text: str) -> str:
    """Return a tag as it is stored: in lower case, with single blanks.

    Raises:
        InvalidRequest: it is empty or too long, or has invisible characters.
    """
    tag = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    if not 1 <= len(tag) <= 64 or any(unicodedata.category(letter)[0] == "C" for letter in tag):
        raise InvalidRequest("A tag has 1 to 64 characters, all of them visible", details={"field": "tags"})
    return tag


class GalleryMarks:
    """Changes the marks of videos that the current caller sees; unknown ids are passed over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trash(self, task_ids: Sequence[str]) -> list[str]:
        """Move videos into the trash; return the ids of those that were not there."""
        with self._database.begin() as connection:
            changed = update(gallery).where(_seen(task_ids), gallery.c.trashed_at.is_(None))
            ids = _ids(connection, changed.values(trashed_at=database_now()))
            append_all(connection, ids, EventType.OUTPUT_CHANGED, {"change": "trashed"})
        return ids

    def restore(self, task_ids: Sequence[str]) -> list[str]:
        """Take videos out of the trash; return the ids of those that were there."""
        with self._database.begin() as connection:
            changed = update(gallery).where(_seen(task_ids), gallery.c.trashed_at > GIVEN_UP)
            ids = _ids(connection, changed.values(trashed_at=None))
            append_all(connection, ids, EventType.OUTPUT_CHANGED, {"change": "restored"})
        return ids

    def draw(self, placeholders: Mapping[str, bytes]) -> None:
        """Store placeholders by video; an empty one means that none can be drawn."""
        with self._database.begin() as connection:
            for task_id, picture in placeholders.items():
                connection.execute(update(gallery).where(gallery.c.task_id == task_id).values(placeholder=picture))

    def in_trash(self, days: float = 0.0, limit: int = 500) -> list[str]:
        """Return the ids of videos that have been in the trash for so many days, longest first."""
        old = gallery.c.trashed_at <= database_now() - days * _DAY
        due = select(gallery.c.task_id).where(old, seen_by_caller(gallery.c.owner))
        with self._database.read() as connection:
            return list(connection.execute(due.order_by(gallery.c.trashed_at).limit(limit)).scalars())

    def mark(self, task_ids: Sequence[str], marks: Marks) -> list[str]:
        """Change the marks of videos in the gallery; return the ids of all that were found.

        Raises:
            BoardNotFound: there is no such board; nothing was changed.
            InvalidRequest: a tag cannot be used, or a video would have too many; nothing was changed.
        """
        here = _seen(task_ids), gallery.c.trashed_at.is_(None)
        with self._database.begin() as connection:
            rows = connection.execute(select(gallery.c.number, gallery.c.task_id).where(*here)).all()
            numbers, ids = [row[0] for row in rows], [row[1] for row in rows]
            values: dict[str, Any] = {}
            if marks.favourite is not None:
                values["favourite"] = marks.favourite
            if marks.board is not None:
                if marks.board:
                    _board(connection, marks.board)
                values["board_id"] = marks.board or None
            if values:
                connection.execute(update(gallery).where(gallery.c.number.in_(numbers)).values(values))
            _change_tags(connection, numbers, marks)
            append_all(connection, ids, EventType.OUTPUT_CHANGED, {"change": "marked"} | _told(marks))
        return ids

    def boards(self) -> list[Board]:
        """Return the boards that the caller sees, by name."""
        with self._database.read() as connection:
            return _boards(connection)

    def add_board(self, name: str) -> Board:
        """Make an empty board.

        Raises:
            BoardExists: another one has this name.
            InvalidRequest: there are too many.
        """
        with self._database.begin() as connection:
            owner = new_owner()
            _check_name(connection, name, owner)
            count = select(func.count()).select_from(boards).where(boards.c.owner == owner)
            if connection.execute(count).scalar_one() >= MAX_BOARDS:
                raise InvalidRequest(f"There are {MAX_BOARDS} boards already", suggestions=("Delete one first.",))
            board = Board(new_task_id(), name, 0)
            connection.execute(insert(boards).values(id=board.id, name=name, owner=owner, created_at=database_now()))
        return board

    def rename_board(self, board_id: str, name: str) -> Board:
        """Give a board another name.

        Raises:
            BoardNotFound: there is no such board.
            BoardExists: another one has this name.
        """
        with self._database.begin() as connection:
            _check_name(connection, name, _board(connection, board_id), besides=board_id)
            connection.execute(update(boards).where(boards.c.id == board_id).values(name=name))
            return next(board for board in _boards(connection) if board.id == board_id)

    def delete_board(self, board_id: str) -> None:
        """Delete a board; its videos stay in the gallery.

        Raises:
            BoardNotFound: there is no such board.
        """
        with self._database.begin() as connection:
            _board(connection, board_id)
            connection.execute(update(gallery).where(gallery.c.board_id == board_id).values(board_id=None))
            connection.execute(delete(boards).where(boards.c.id == board_id))


def give_up(connection: Connection, task_id: str) -> None:
    """Record that the deletion of a video begins."""
    connection.execute(update(gallery).where(gallery.c.task_id == task_id).values(trashed_at=GIVEN_UP))


def note_deleted(connection: Connection, task_id: str) -> None:
    """Record that a video and its files are gone for good."""
    append_all(connection, [task_id], EventType.OUTPUT_CHANGED, {"change": "deleted"})


def _ids(connection: Connection, change: Any) -> list[str]:
    return list(connection.execute(change.returning(gallery.c.task_id)).scalars())


def _told(marks: Marks) -> dict[str, Any]:
    """Return what clients are told of a change; tags are looked up again by those who show them."""
    told: dict[str, Any] = {}
    if marks.favourite is not None:
        told["favourite"] = marks.favourite
    if marks.board is not None:
        told["board_id"] = marks.board or None
    if marks.tags is not None or marks.add_tags or marks.remove_tags:
        told["tags_changed"] = True
    return told


def _change_tags(connection: Connection, numbers: Sequence[int], marks: Marks) -> None:
    mine = gallery_tags.c.number.in_(numbers)
    gone = [plain_tag(tag) for tag in marks.remove_tags]
    new = list(dict.fromkeys(plain_tag(tag) for tag in (*(marks.tags or ()), *marks.add_tags)))
    if marks.tags is not None:
        connection.execute(delete(gallery_tags).where(mine))
    elif gone or new:  # a tag that is there already is inserted anew
        connection.execute(delete(gallery_tags).where(mine, gallery_tags.c.tag.in_([*gone, *new])))
    if not new or not numbers:
        return
    connection.execute(insert(gallery_tags), [{"number": one, "tag": tag} for one in numbers for tag in new])
    crowded = select(gallery_tags.c.number).where(mine).group_by(gallery_tags.c.number)
    if connection.execute(crowded.having(func.count() > MAX_TAGS).limit(1)).first() is not None:
        raise InvalidRequest(f"A video has at most {MAX_TAGS} tags", details={"field": "tags", "maximum": MAX_TAGS})


def _seen(task_ids: Sequence[str]) -> ColumnElement[bool]:
    return gallery.c.task_id.in_(task_ids) & seen_by_caller(gallery.c.owner)


def _board(connection: Connection, board_id: str) -> str:
    """Return the owner of a board that the caller sees."""
    if not is_id(board_id):
        raise BoardNotFound
    known = select(boards.c.owner).where(boards.c.id == board_id, seen_by_caller(boards.c.owner))
    owner: str | None = connection.execute(known).scalar_one_or_none()
    if owner is None:
        raise BoardNotFound
    return owner


def _check_name(connection: Connection, name: str, owner: str, besides: str | None = None) -> None:
    named = select(boards.c.id).where(boards.c.name == name, boards.c.owner == owner)
    taken = connection.execute(named).scalar_one_or_none()
    if taken not in (None, besides):
        raise BoardExists


def _boards(connection: Connection) -> list[Board]:
    count = select(func.count()).where(gallery.c.board_id == boards.c.id, gallery.c.trashed_at.is_(None))
    query = select(boards.c.id, boards.c.name, count.scalar_subquery())
    query = query.where(seen_by_caller(boards.c.owner)).order_by(boards.c.name, boards.c.id)
    return [Board(*row) for row in connection.execute(query)]
