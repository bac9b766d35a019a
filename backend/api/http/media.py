"""Media file responses: HTTP ranges, a fixed content type, and errors in the API's shape."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from backend.api.http.errors import error_answer, request_id_of

#: Browsers may display the file, but nothing in it may run.
_HEADERS = {"Content-Security-Policy": "sandbox", "Cache-Control": "private, max-age=3600"}


class MediaFile(FileResponse):
    """A file response with range support (206); ranges outside the file are rejected (416)."""

    def __init__(self, path: Path, media_type: str, *, etag: str | None = None, download_as: str | None = None) -> None:
        headers = _HEADERS | ({"ETag": f'"{etag}"'} if etag else {})
        super().__init__(path, media_type=media_type, filename=download_as, stat_result=path.stat(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; replace the framework's plain-text errors with the API's shape."""
        refused: Message | None = None

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
                "range_not_satisfiable" if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE else "malformed_range",
                "This part of the file does not exist",
                request_id=request_id_of(scope),
                suggestions=("Ask for a part inside the file, or leave the Range header out.",),
                headers=headers,
            )
            await answer(scope, receive, send)
