"""The router class of every route: what all routes share is set here, once.

The annotation of a route function is the shape of its answer. Unknown values are absent from answers; a route whose
nulls carry meaning passes `response_model_exclude_none=False`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter

from backend.api.http.shapes import ErrorBody

Handler = TypeVar("Handler", bound=Callable[..., Any])
_SHARED: dict[str, Any] = {"response_model_exclude_none": True}


class Routes(APIRouter):
    """A router whose answers leave out what has no value."""

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a GET route; options as in `APIRouter.get`."""
        return super().get(path, **_SHARED | options)

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a POST route; options as in `APIRouter.post`."""
        return super().post(path, **_SHARED | options)

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a DELETE route; options as in `APIRouter.delete`."""
        return super().delete(path, **_SHARED | options)


def refusals(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Document error answers: the HTTP status of each, and what it means."""
    return {status: {"model": ErrorBody, "description": text} for status, text in descriptions.items()}
