"""Routes of the browser session: the key is exchanged for a cookie that pictures, players and sockets send along."""

from __future__ import annotations

from fastapi import Request, Response

from backend.api.http.access import COOKIE, SESSION_SECONDS, AccessTokens
from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message

router = Routes(tags=["system"])


@router.post("/session", summary="Start a browser session", responses=refusals({401: "The key is missing or wrong"}))
def start_session(services: ServicesDep, request: Request, response: Response) -> Message:
    """Set a cookie that stands in for the API key for 12 hours.

    Send the key as `Authorization: Bearer` once; then `<video>`, `<img>` and WebSockets work without it. The cookie
    is unreadable for scripts and is sent to this site only.
    """
    tokens = AccessTokens.of(services.settings)
    if tokens.key is None:
        return Message(message="This server has no API key, so no session is needed")
    response.set_cookie(
        COOKIE,
        tokens.session(),
        max_age=SESSION_SECONDS,
        path=request.scope.get("root_path", "") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return Message(message="The session has started")


@router.delete("/session", summary="End a browser session")
def end_session(request: Request, response: Response) -> Message:
    """Remove the cookie from this browser; changing the API key ends all sessions."""
    response.delete_cookie(COOKIE, path=request.scope.get("root_path", "") or "/", httponly=True, samesite="strict")
    return Message(message="The session has ended")
