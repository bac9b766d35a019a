"""The router class that sets the options shared by all routes.

A route function's return annotation is its response shape. Unknown values are omitted from responses; a route whose
nulls carry meaning passes `response_model_exclude_none=False`. Routes that change something have threads of their own,
so that writers that wait for a locked database keep no reader from its answer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError

from backend.api.http.repeats import RepeatableRoute, idempotency_key
from backend.api.http.shapes import ErrorBody
from backend.core.plain_words import nearest

Handler = TypeVar("Handler", bound=Callable[..., Any])

#: Threads of the routes that change something. The database has one writer at a time, so more would only wait.
_WRITERS: Final = ThreadPoolExecutor(16, thread_name_prefix="write")


async def refuse_unknown_query(request: Request) -> None:
    """Refuse query parameters that the route does not have, as unknown fields of a body are.

    Raises:
        RequestValidationError: there is one; a misspelt filter would otherwise answer with everything.
    """
    sent = request.query_params.keys()
    if not sent:
        return
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = sorted(_query_names(dependant)) if isinstance(dependant, Dependant) else []
    unknown = [name for name in sent if name not in known]
    if unknown:
        raise RequestValidationError([_unknown(name, known) for name in unknown])


def _unknown(name: str, known: list[str]) -> dict[str, Any]:
    return {"loc": ("query", name), "msg": "", "type": "extra_forbidden", "ctx": {"meant": nearest(name, known)}}


def _query_names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_query_names(inner) for inner in dependant.dependencies))


_SHARED: dict[str, Any] = {"response_model_exclude_none": True, "dependencies": [Depends(refuse_unknown_query)]}


class Routes(APIRouter):
    """A router whose responses omit null values."""

    def __init__(self, **options: Any) -> None:
        refused = {422: {"model": ErrorBody, "description": "The request does not fit; nothing was done"}}
        super().__init__(responses=refused | options.pop("responses", {}), **options)

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a GET route, which also answers HEAD; options as in `APIRouter.get`."""
        options = _SHARED | options
        get, head = super().get(path, **options), super().head(path, **options | {"include_in_schema": False})
        return lambda handler: get(head(handler))

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a POST route; options as in `APIRouter.post`."""
        return _apart(super().post(path, **_SHARED | options))

    def create(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a POST route that creates something; a call that repeats its `Idempotency-Key` creates nothing more."""
        depends = [*_SHARED["dependencies"], Depends(idempotency_key)]

        def add(handler: Callable[..., Any]) -> None:
            own: dict[str, Any] = _SHARED | {"dependencies": depends} | options
            self.add_api_route(path, handler, methods=["POST"], route_class_override=RepeatableRoute, **own)

        return _apart(add)

    def put(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a PUT route; options as in `APIRouter.put`."""
        return _apart(super().put(path, **_SHARED | options))

    def patch(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a PATCH route; options as in `APIRouter.patch`."""
        return _apart(super().patch(path, **_SHARED | options))

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Add a DELETE route; options as in `APIRouter.delete`."""
        return _apart(super().delete(path, **_SHARED | options))


def _apart(add: Callable[[Callable[..., Any]], object]) -> Callable[[Handler], Handler]:
    """Add handlers that run in the writers' threads; `add` adds a handler to a router."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def in_writers_thread(*arguments: Any, **values: Any) -> Any:
            call = partial(copy_context().run, handler, *arguments, **values)
            return await asyncio.get_running_loop().run_in_executor(_WRITERS, call)

        add(handler if inspect.iscoroutinefunction(handler) else in_writers_thread)
        return handler

    return decorate


def refusals(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Document error responses, as a mapping of HTTP status to meaning."""
    return {status: {"model": ErrorBody, "description": text} for status, text in descriptions.items()}
