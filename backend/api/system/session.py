"""Routes of the browser session: the key is exchanged for a cookie that pictures, players and sockets send along."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message
from backend.core.access.caller import Scope, current_caller
from backend.core.access.tokens import SESSION_COOKIE, SESSION_SECONDS

router = Routes(tags=["system"])


class Session(BaseModel):
    """Who is served, and what that key may still use."""

    name: str
    key_id: str | None = Field(None, description="Absent for the operator, and on a server without keys")
    scopes: list[Scope]
    needs_key: bool = Field(description="Whether this server asks for a key")
    gpu_seconds_today: float | None = Field(None, description="Used in this UTC day, with what runs now")
    gpu_seconds_per_day: float | None = Field(None, description="Absent without a limit")
    unfinished_tasks: int | None = None
    waiting_tasks: int | None = Field(None, description="How many unfinished tasks it may have; absent without a limit")
    requests_per_minute: int | None = Field(None, description="Absent without a limit")


@router.get("/session", summary="Who is served")
def show_session(services: ServicesDep) -> Session:
    """Show the name, scopes and use of the key that this request came with."""
    caller = current_caller()
    used = None if caller.key_id is None else services.key_usage.of(caller.key_id)
    return Session(
        name=caller.name,
        key_id=caller.key_id,
        scopes=[scope for scope in Scope if caller.may(scope)],
        needs_key=services.keys.locked,
        gpu_seconds_today=None if used is None else round(used.gpu_seconds_today, 3),
        gpu_seconds_per_day=caller.limits.gpu_seconds_per_day,
        unfinished_tasks=None if used is None else used.waiting_tasks,
        waiting_tasks=caller.limits.waiting_tasks,
        requests_per_minute=caller.limits.requests_per_minute,
    )


@router.post("/session", summary="Start a browser session", responses=refusals({401: "The key is missing or wrong"}))
def start_session(services: ServicesDep, request: Request, response: Response) -> Message:
    """Set a cookie that stands in for the API key for 12 hours.

    Send the key as `Authorization: Bearer` once; then `<video>`, `<img>` and WebSockets work without it. The cookie
    is unreadable for scripts and is sent to this site only; it ends when its key is revoked.
    """
    tokens = services.keys.tokens_of(current_caller())
    if tokens is None:
        return Message(message="This server has no API key, so no session is needed")
    response.set_cookie(
        SESSION_COOKIE,
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
    """Remove the cookie from this browser; revoking the key ends all its sessions."""
    response.delete_cookie(
        SESSION_COOKIE, path=request.scope.get("root_path", "") or "/", httponly=True, samesite="strict"
    )
    return Message(message="The session has ended")
