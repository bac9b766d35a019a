"""Media file responses: HTTP ranges, a fixed content type, and errors in the API's shape."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from backend.api.http.errors import error_answer
from backend.core.errors.requests import MalformedRange, RangeNotSatisfiable

#: Browsers may display the file, but nothing in it may run.
_HEADERS = {"Content-Security-Policy": "sandbox", "Cache-Control": "private, max-age=3600"}

#: Headers of a 304, which repeat what a 200 would have said about the file.
_KEPT_UNCHANGED = ("etag", "last-modified", "cache-control")
_RANGE = re.compile(r"bytes\s*=\s*(?:(?:\d{1,18}-\d{0,18}|-\d{1,18})\s*(?:,\s*|$))+", re.ASCII | re.IGNORECASE)


class MediaFile(FileResponse):
    """A file response with range support (206); ranges outside the file are rejected (416)."""

    def __init__(self, path: Path, media_type: str, *, etag: str | None = None, download_as: str | None = None) -> None:
        headers = _HEADERS | ({"ETag": f'"{etag}"'} if etag else {})
        super().__init__(path, media_type=media_type, filename=download_as, stat_result=path.stat(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; replace the framework's plain-text errors with the API's shape."""
        if self._is_known_to(Headers(scope=scope)):
            kept = {name: value for name, value in self.headers.items() if name in _KEPT_UNCHANGED}
            await Response(status_code=HTTPStatus.NOT_MODIFIED, headers=kept)(scope, receive, send)
            return
        refused: Message | None = None
        scope = _with_readable_range(scope)

        async def send_unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                refused = message
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refused is not None:
            status = HTTPStatus(refused["status"])
            known = {name.decode().lower(): value.decode() for name, value in refused["headers"]}
            headers = {"Content-Range": known["content-range"]} if "content-range" in known else {}
            answer = error_answer(
                status,
                (RangeNotSatisfiable if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE else MalformedRange).code,
                "This part of the file does not exist",
                scope=scope,
                suggestions=RangeNotSatisfiable.suggestions,
                headers=headers,
            )
            await answer(scope, receive, send)

    def _is_known_to(self, headers: Headers) -> bool:
        """Whether the client already has this file, by the tags or the date it names."""
        tags = headers.get("if-none-match")
        if tags is not None:
            names = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
            return "*" in names or self.headers["etag"] in names
        return headers.get("if-modified-since") == self.headers["last-modified"]


def _with_readable_range(scope: Scope) -> Scope:
    """Drop a `Range` that is in another unit or cannot be read: the whole file answers it (RFC 9110, 14.2)."""
    sent = Headers(scope=scope).getlist("range")
    if not sent or (len(sent) == 1 and _RANGE.fullmatch(sent[0]) and not _runs_backwards(sent[0])):
        return scope
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}


def _runs_backwards(asked: str) -> bool:
    parts = (part.strip().partition("-") for part in asked.partition("=")[2].split(","))
    return any(first and last and int(first) > int(last) for first, _, last in parts)
