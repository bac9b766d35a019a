"""Response shapes shared by several groups of routes, and the formatting of their values."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from backend.core.catalogue.table import models_in_force
from backend.core.domain import iso
from backend.services.models.availability import FetchFirst

Timestamp = Annotated[
    str, Field(description="ISO-8601, UTC, with a trailing Z", json_schema_extra={"format": "date-time"})
]


#: A client that sends this header with the value `exact` knows more models than the three of the earlier application.
MODEL_IDS_HEADER: Final = "Wan22-Model-Ids"
EXACT: Final = "exact"

#: Whether the client of the current request sent it.
knows_exact_ids: ContextVar[bool] = ContextVar("knows_exact_ids", default=False)


def shown_model(model_id: str) -> str:
    """Return the id to show in a field that clients of the earlier application read: the family, unless asked for more.

    A model that has left the table keeps its id.
    """
    spec = None if knows_exact_ids.get() else models_in_force().get(model_id)
    return model_id if spec is None else spec.family


class ErrorBody(BaseModel):
    """Every error answer."""

    detail: str
    error: str = Field(description="Stable machine-readable code")
    message: str = Field(description="The same sentence as `detail`")
    details: dict[str, Any] | list[Any] | None = None
    suggestions: list[str] = []
    request_id: str
    actions: list[dict[str, Any]] | None = Field(
        None,
        description="Next steps that a client can execute, listed in docs/troubleshooting.md; absent where none is",
    )


class Message(BaseModel):
    """What was done, in a sentence."""

    message: str


class DownloadFirst(BaseModel):
    """What a task fetches before it can run."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str
    repository: str
    status: str = Field(description="What the disk has of it: missing, partial, downloading, verifying or corrupted")
    bytes: int | None = Field(None, description="What is still to be fetched; absent until the hub was asked")
    weights_gb: float = Field(description="The weights in 16 bit, as the table of models has them")


def download_first(fetch: FetchFirst | None) -> DownloadFirst | None:
    """Describe the download that a task needs before it can run."""
    if fetch is None:
        return None
    return DownloadFirst(
        model_type=fetch.spec.id,
        repository=str(fetch.spec.repo_id),
        status=fetch.presence,
        bytes=fetch.missing_bytes,
        weights_gb=fetch.spec.weights_gb,
    )


def known(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` without the Nones."""
    return {key: value for key, value in values.items() if value is not None}


def iso_or_none(moment: datetime | None) -> str | None:
    """Format a timestamp for the API; None stays None."""
    return None if moment is None else iso(moment)
