"""Which videos a list shows, and in which order. Every query of the gallery gets its conditions here, and only here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, column, exists, func, literal_column, select, table

from backend.store.access.ownership import seen_by_caller
from backend.store.tables import gallery, gallery_tags

#: Words of a search that are read; more make it no narrower.
MAX_WORDS: Final = 16
_WORD: Final = re.compile(r"[^\W_]+")
#: Letters of scripts that are written without spaces: what stands between two blanks there is no word.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Sort(StrEnum):
    """Orders of a list."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LONGEST = "longest"
    LARGEST = "largest"


_ORDERS: Final[dict[Sort, tuple[ColumnElement[Any], ...]]] = {
    Sort.NEWEST: (gallery.c.created_at.desc(), gallery.c.key.desc()),
    Sort.OLDEST: (gallery.c.created_at.asc(), gallery.c.key.asc()),
    Sort.LONGEST: (gallery.c.seconds.desc(), gallery.c.created_at.desc(), gallery.c.key.desc()),
    Sort.LARGEST: (gallery.c.size_bytes.desc(), gallery.c.created_at.desc(), gallery.c.key.desc()),
}


@dataclass(frozen=True, slots=True)
class GalleryFilter:
    """What a list shows; None = no matter which. The default is the gallery without its trash."""

    models: tuple[str, ...] | None = None  #: any of these
    after: datetime | None = None  #: made at this moment or later
    before: datetime | None = None  #: made before it
    favourite: bool | None = None
    tags: tuple[str, ...] = ()  #: all of these
    board: str | None = None  #: the id of a board; empty = on no board
    mock: bool | None = None
    imported: bool | None = None
    search: str = ""  #: each word is the beginning of a word of the prompt
    trash: bool = False  #: the trash instead of the gallery


def conditions(which: GalleryFilter, *, sqlite: bool) -> list[ColumnElement[bool]]:
    """Return what holds for the rows of `gallery` that a list shows to the current caller."""
    found = [seen_by_caller(gallery.c.owner), *_plain(which)]
    for tag in which.tags:
        found.append(exists().where(gallery_tags.c.number == gallery.c.number, gallery_tags.c.tag == tag))
    words, parts = search_words(which.search)
    if words:
        found.append(_has_words(words, sqlite=sqlite))
    found += [gallery.c.prompt.icontains(part, autoescape=True) for part in parts]
    return found


def shown(rows: Select[Any], which: GalleryFilter, sort: Sort, *, sqlite: bool) -> Select[Any]:
    """Limit a query over `gallery` to what a list shows, and put it in order."""
    return rows.where(*conditions(which, sqlite=sqlite)).order_by(*_ORDERS[sort])


def search_words(text: str) -> tuple[list[str], list[str]]:
    """Split a search into words that the index knows by their beginnings, and parts to look for anywhere."""
    found = _WORD.findall(unicodedata.normalize("NFC", text))[:MAX_WORDS]
    return [one for one in found if not _UNSPACED.search(one)], [one for one in found if _UNSPACED.search(one)]


def _plain(which: GalleryFilter) -> Iterator[ColumnElement[bool]]:
    rows = gallery.c
    yield rows.trashed_at > 0 if which.trash else rows.trashed_at.is_(None)
    if which.models is not None:
        yield rows.model.in_(which.models)
    if which.after is not None:
        yield rows.created_at >= which.after.timestamp()
    if which.before is not None:
        yield rows.created_at < which.before.timestamp()
    for value, flag in ((which.favourite, rows.favourite), (which.mock, rows.mock), (which.imported, rows.imported)):
        if value is not None:
            yield flag if value else ~flag
    if which.board is not None:
        yield rows.board_id == which.board if which.board else rows.board_id.is_(None)


def _has_words(words: Iterable[str], *, sqlite: bool) -> ColumnElement[bool]:
    if sqlite:
        index = table("gallery_search", column("rowid"))
        # A word is quoted, so that none is an operator.
        wanted = " ".join(f'"{word}" *' for word in words)
        found = select(index.c.rowid).where(literal_column("gallery_search").op("MATCH")(wanted))
        return gallery.c.number.in_(found)
    wanted = " & ".join(f"'{word}':*" for word in words)
    simple: ColumnElement[str] = literal_column("'simple'")
    return func.to_tsvector(simple, gallery.c.prompt).op("@@")(func.to_tsquery(simple, wanted))
