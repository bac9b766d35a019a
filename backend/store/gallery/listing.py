"""Lists the gallery: the ids of everything at once, or one page with all details.

The ids of a million videos are put together inside the database: sixteen bytes each, and no row ever becomes an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Select,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from backend.core.domain import Output
from backend.store.access.ownership import seen_by_caller
from backend.store.access.totals import of_gallery
from backend.store.engine import Database
from backend.store.gallery.filters import GalleryFilter, Sort, conditions, shown
from backend.store.rows import moment, readable, to_output
from backend.store.tables import gallery, gallery_tags, outputs

#: Bytes of an id in a packed list.
KEY_BYTES: Final = 16
#: Most ids in one packed list: 32 MB.
MAX_IDS: Final = 2_000_000
_EVERYTHING: Final = GalleryFilter()
_DAY_SECONDS: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """A finished video, and what users did with it."""

    output: Output
    favourite: bool = False
    imported: bool = False
    board: str | None = None  #: id
    tags: tuple[str, ...] = ()
    trashed_at: datetime | None = None  #: None = it is in the gallery
    placeholder: bytes | None = None  #: its picture in at most 28 bytes; None = there is none, or not yet


class GalleryListing:
    """Reads the part of the gallery that the current caller sees, by filters."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sqlite = database.file is not None

    def packed_ids(self, which: GalleryFilter, sort: Sort = Sort.NEWEST, limit: int = MAX_IDS) -> bytes:
        """Return the ids of all videos that a list shows, sixteen bytes each, in order."""
        with self._database.read() as connection:
            self._plan_for_many(connection)
            found = shown(select(gallery.c.key), which, sort, sqlite=self._sqlite).limit(limit).subquery()
            joined: bytes | None = connection.execute(select(self._joined(found.c.key))).scalar_one()
        return b"" if joined is None else bytes(joined)

    def ids(
        self, which: GalleryFilter = _EVERYTHING, sort: Sort = Sort.NEWEST, *, limit: int, offset: int = 0
    ) -> list[str]:
        """Return some of the ids that a list shows, in order."""
        page = shown(select(gallery.c.task_id), which, sort, sqlite=self._sqlite).limit(limit).offset(offset)
        with self._database.read() as connection:
            return list(connection.execute(page).scalars())

    def page(
        self, which: GalleryFilter = _EVERYTHING, sort: Sort = Sort.NEWEST, *, limit: int, offset: int = 0
    ) -> list[GalleryItem]:
        """Return the videos of one page, with all details."""
        with self._database.read() as connection:
            # The page first, in the narrow table; then its rows alone in the wide one.
            page = shown(select(gallery.c.number), which, sort, sqlite=self._sqlite).limit(limit).offset(offset)
            numbers = list(connection.execute(page).scalars())
            found = _items(connection, gallery.c.number.in_(numbers))
        return [found[number] for number in numbers if number in found]

    def of(self, task_ids: Sequence[str]) -> list[GalleryItem]:
        """Return the named videos in this order, also those in the trash; unknown ones are left out."""
        with self._database.read() as connection:
            there = or_(gallery.c.trashed_at.is_(None), gallery.c.trashed_at > 0)
            found = _items(connection, gallery.c.task_id.in_(task_ids) & seen_by_caller(gallery.c.owner) & there)
        known = {item.output.task_id: item for item in found.values()}
        return [known[one] for one in dict.fromkeys(task_ids) if one in known]

    def totals(self, which: GalleryFilter = _EVERYTHING) -> tuple[int, int]:
        """Return the number of videos that a list shows, and the size of their files in bytes."""
        if which == _EVERYTHING:
            with self._database.read() as connection:
                return of_gallery(connection)
        counted = select(func.count(), func.coalesce(func.sum(gallery.c.size_bytes), 0)).select_from(gallery)
        with self._database.read() as connection:
            count, size = connection.execute(counted.where(*conditions(which, sqlite=self._sqlite))).one()
        return int(count), int(size)

    def days(self, which: GalleryFilter = _EVERYTHING, offset: timedelta = timedelta()) -> list[tuple[date, int]]:
        """Return the days on which the videos of a list were made, with their number, newest first.

        Days begin at midnight of a clock that is `offset` ahead of UTC.
        """
        day = (cast(gallery.c.created_at + offset.total_seconds(), BigInteger) // _DAY_SECONDS).label("day")
        counted = select(day, func.count()).select_from(gallery).where(*conditions(which, sqlite=self._sqlite))
        with self._database.read() as connection:
            self._plan_for_many(connection)
            found = connection.execute(counted.group_by(day).order_by(day.desc())).all()
        return [(_EPOCH + timedelta(days=int(row[0])), row[1]) for row in found]

    def tags(self) -> list[tuple[str, int]]:
        """Return the tags of the gallery with the number of their videos, most used first."""
        count = func.count()
        used = (
            select(gallery_tags.c.tag, count)
            .join(gallery, gallery.c.number == gallery_tags.c.number)
            .where(*conditions(_EVERYTHING, sqlite=self._sqlite))
            .group_by(gallery_tags.c.tag)
            .order_by(count.desc(), gallery_tags.c.tag)
        )
        with self._database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(used)]

    def undrawn(self, limit: int) -> list[str]:
        """Return the ids of some videos that have no placeholder yet, newest first."""
        wanted = select(gallery.c.task_id).where(gallery.c.placeholder.is_(None))
        with self._database.read() as connection:
            return list(connection.execute(wanted.order_by(gallery.c.number.desc()).limit(limit)).scalars())

    def _joined(self, key: ColumnElement[bytes]) -> ColumnElement[Any]:
        if self._sqlite:
            # SQLite joins texts, and takes the bytes of a blob for one as they are.
            return cast(func.group_concat(key, literal_column("''")), LargeBinary)
        return func.string_agg(key, literal_column("''::bytea"))

    def _plan_for_many(self, connection: Connection) -> None:
        if not self._sqlite:
            # Compiling the query takes longer than running it.
            connection.exec_driver_sql("SET LOCAL jit = off")


def _items(connection: Connection, which: ColumnElement[bool]) -> dict[int, GalleryItem]:
    """Return videos by number."""
    marks = [
        column.label(f"gallery_{column.name}")
        for column in gallery.c
        if column.name in ("number", "favourite", "imported", "board_id", "trashed_at", "placeholder")
    ]
    rows: Select[Any] = select(outputs, *marks).join(gallery, gallery.c.task_id == outputs.c.task_id).where(which)
    found = connection.execute(rows).all()
    tagged = select(gallery_tags.c.number, gallery_tags.c.tag).order_by(gallery_tags.c.tag)
    tags: dict[int, list[str]] = {}
    numbers = [row.gallery_number for row in found]
    for number, tag in connection.execute(tagged.where(gallery_tags.c.number.in_(numbers))) if numbers else ():
        tags.setdefault(number, []).append(tag)

    def item(row: Row[Any]) -> tuple[int, GalleryItem]:
        return row.gallery_number, GalleryItem(
            output=to_output(row),
            favourite=row.gallery_favourite,
            imported=row.gallery_imported,
            board=row.gallery_board_id,
            tags=tuple(tags.get(row.gallery_number, ())),
            trashed_at=None if row.gallery_trashed_at is None else moment(row.gallery_trashed_at),
            placeholder=row.gallery_placeholder or None,
        )

    return dict(readable(found, item))
