"""Routes that read many videos: ids first, details of the visible ones, and what there is to filter by.

A client that shows a long list fetches the ids of all of it at once, which is fast, and the details of what is on the
screen when it gets there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Header, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from backend.api.gallery.shapes import VideoMetadata, video_metadata
from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.core.catalogue.spec import Mode
from backend.core.catalogue.table import find_model, models_in_force
from backend.core.errors.requests import InvalidRequest, UnknownModel
from backend.services.system.container import Services
from backend.store.gallery.filters import GalleryFilter, Sort
from backend.store.gallery.listing import KEY_BYTES, MAX_IDS
from backend.store.gallery.marks import plain_tag

router = Routes(prefix="/outputs", tags=["outputs"])

#: Most ids in a JSON list; packed ones have no such limit.
MAX_LISTED: Final = 10_000
#: Most videos described in one answer.
MAX_BATCH: Final = 500
_MAX_NAMES: Final = 50
#: The widest offset of a time zone, in minutes.
MAX_UTC_OFFSET: Final = 18 * 60
_PACKED: Final = "application/octet-stream"

OneOf = list[Annotated[str, Field(min_length=1, max_length=128)]]
#: An id of a video as clients send it in a body.
VideoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list shows, and in which order."""

    which: GalleryFilter
    sort: Sort


def selection(
    services: ServicesDep,
    search: Annotated[
        str, Query(max_length=500, description="Words of the prompt, each by its beginning; all of them must occur")
    ] = "",
    model: Annotated[OneOf, Query(max_length=_MAX_NAMES, description="Models that made it; any of them")] = [],  # noqa: B006
    family: Annotated[OneOf, Query(max_length=_MAX_NAMES, description="Families of models, such as T2V-A14B")] = [],  # noqa: B006
    mode: Annotated[list[Mode], Query(max_length=3, description="What videos are made from; any of them")] = [],  # noqa: B006
    after: Annotated[
        datetime | None, Query(description="Made at this time or later, ISO-8601; UTC without zone")
    ] = None,
    before: Annotated[datetime | None, Query(description="Made before this time")] = None,
    favourite: Annotated[bool | None, Query(description="Only favourites, or only others")] = None,
    tag: Annotated[OneOf, Query(max_length=_MAX_NAMES, description="Tags; a video must have all of them")] = [],  # noqa: B006
    board: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9-]{1,64}$", description="Id of a board, or `none` for those on none")
    ] = None,
    mock: Annotated[bool | None, Query(description="Only mocks, or only others")] = None,
    imported: Annotated[bool | None, Query(description="Only uploaded clips, or only others")] = None,
    trash: Annotated[bool, Query(description="The trash instead of the gallery")] = False,
    sort: Annotated[Sort, Query(description="Order of the list")] = Sort.NEWEST,
) -> Selection:
    """Read what a list shows from the query.

    Raises:
        UnknownModel: a model or family has no such name, and no video has it either.
        InvalidRequest: a tag cannot exist.
    """
    return Selection(
        GalleryFilter(
            models=_models(services, model, family, mode),
            after=_moment(after),
            before=_moment(before),
            favourite=favourite,
            tags=tuple(plain_tag(one) for one in tag),
            board="" if board == "none" else board,
            mock=mock,
            imported=imported,
            search=search,
            trash=trash,
        ),
        sort,
    )


SelectionDep = Annotated[Selection, Depends(selection)]


def _models(
    services: Services, names: Iterable[str], families: Iterable[str], modes: list[Mode]
) -> tuple[str, ...] | None:
    """Return the ids of the models that all of these filters allow; None = any."""
    table = models_in_force()
    allowed: set[str] | None = None

    def narrow(ids: set[str]) -> None:
        nonlocal allowed
        allowed = ids if allowed is None else allowed & ids

    if named := {_model(services, name) for name in names}:
        narrow(named)
    if kinds := {(spec.mode, spec.experts) for spec in map(find_model, families)}:
        narrow({spec.id for spec in table.specs if (spec.mode, spec.experts) in kinds})
    if modes:
        narrow({spec.id for spec in table.specs if spec.mode in modes})
    return None if allowed is None else tuple(sorted(allowed))


def _model(services: Services, name: str) -> str:
    try:
        return find_model(name).id
    except UnknownModel:
        if name.isprintable() and services.gallery.totals(GalleryFilter(models=(name,)))[0]:
            return name  # of a model that is no longer in the table
        raise


def _moment(value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


class IdList(BaseModel):
    """Ids of videos, in order."""

    ids: list[str]
    total_count: int = Field(description="How many there are without `limit` and `offset`")


class VideoIds(BaseModel):
    """The videos that are on the screen."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    ids: list[VideoId] = Field(min_length=1, max_length=MAX_BATCH)


class VideoBatch(BaseModel):
    """The videos that were asked for, in that order."""

    videos: list[VideoMetadata]
    missing: list[str] = Field(description="Ids that are in neither the gallery nor its trash")


class TagCount(BaseModel):
    """A tag in use."""

    tag: str
    videos: int


class TagList(BaseModel):
    """All tags, most used first."""

    tags: list[TagCount]


class DayCount(BaseModel):
    """A day on which videos were made."""

    day: date
    videos: int


class DayList(BaseModel):
    """The days of a list, newest first: their numbers add up to places in it, as long as it is in order of time."""

    days: list[DayCount]


@router.get(
    "/ids",
    summary="The ids of all videos",
    response_model=IdList,
    responses={
        200: {
            "content": {_PACKED: {"schema": {"type": "string", "format": "binary"}}},
            "description": "As JSON, or packed: the 16 bytes of each id (a UUID), one after the other",
        },
        304: {"description": "Nothing has changed since the answer whose `ETag` was sent"},
    },
)
def ids(
    services: ServicesDep,
    selected: SelectionDep,
    form: Annotated[Literal["json", "packed"], Query(alias="format", description="Form of the answer")] = "json",
    limit: Annotated[int | None, Query(ge=1, le=MAX_IDS, description="Most ids; in JSON at most 10,000")] = None,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many to skip; in JSON only")] = 0,
    if_none_match: Annotated[str | None, Header(description="`ETag` of an earlier packed answer")] = None,
) -> Any:
    """List the ids of the videos that fit the filters, in order; `POST /outputs/batch` describes them.

    `format=packed` sends them all at once: 16 MB for a million videos.
    """
    if form == "packed":
        if offset:
            raise InvalidRequest("A packed list begins at the first video", details={"field": "offset"})
        packed = services.gallery.packed_ids(selected.which, selected.sort, limit or MAX_IDS)
        tag = f'"{blake2b(packed, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "X-Total-Count": str(len(packed) // KEY_BYTES), "Cache-Control": "private, no-cache"}
        if if_none_match is not None and tag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(packed, media_type=_PACKED, headers=headers)
    most = min(limit or MAX_LISTED, MAX_LISTED)
    found = services.gallery.ids(selected.which, selected.sort, limit=most, offset=offset)
    return IdList(ids=found, total_count=services.gallery.totals(selected.which)[0])


@router.post("/batch", summary="Describe several videos")
def batch(body: VideoIds, services: ServicesDep) -> VideoBatch:
    """Describe the videos with these ids, also those in the trash; reads only."""
    found = services.gallery.of(body.ids)
    known = {item.output.task_id for item in found}
    missing = [one for one in dict.fromkeys(body.ids) if one not in known]
    return VideoBatch(videos=[video_metadata(item, services) for item in found], missing=missing)


@router.get("/days", summary="On which days videos were made")
def days(
    services: ServicesDep,
    selected: SelectionDep,
    utc_offset: Annotated[
        int,
        Query(ge=-MAX_UTC_OFFSET, le=MAX_UTC_OFFSET, description="Minutes by which the client's clock is ahead of UTC"),
    ] = 0,
) -> DayList:
    """Count the videos that fit the filters by day, for a scale beside the list of ids."""
    found = services.gallery.days(selected.which, timedelta(minutes=utc_offset))
    return DayList(days=[DayCount(day=day, videos=count) for day, count in found])


@router.get("/tags", summary="The tags in use")
def tags(services: ServicesDep) -> TagList:
    """List the tags of the videos in the gallery, most used first."""
    return TagList(tags=[TagCount(tag=tag, videos=count) for tag, count in services.gallery.tags()])
