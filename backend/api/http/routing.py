"""The router class that sets the options shared by all routes.

A route function's return annotation is its response shape. Unknown values are omitted from responses; a route whose
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
    """A router whose responses omit null values."""

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
    """Document error responses, as a mapping of HTTP status to meaning."""
    return {status: {"model": ErrorBody, "description": text} for status, text in descriptions.items()}
