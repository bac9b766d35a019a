"""Routes that tell a client why a browser may, or may not, call this server from its page."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.gate import may_write
from backend.api.http.routing import Routes
from backend.core.plain_words import printable

router = Routes(prefix="/system/cors", tags=["system"])

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class CorsRequest(BaseModel):
    """The request as it arrived."""

    origin: str | None = Field(None, description="Absent where no browser sent it from another page")
    host: str
    method: str


class CorsConfiguration(BaseModel):
    """What the operator allows."""

    enabled: bool
    allowed_origins: list[str]
    allowed_methods: list[str]
    allow_credentials: bool = False


class CorsDiagnostics(BaseModel):
    """How the request was judged."""

    same_origin: bool
    origin_listed: bool
    setting: str = "WAN22_CORS_ORIGINS"


class CorsAnswer(BaseModel):
    """Whether a page of this origin may call the server."""

    cors_valid: bool
    errors: list[str]
    current_request: CorsRequest
    configuration: CorsConfiguration
    diagnostics: CorsDiagnostics


class CorsTest(BaseModel):
    """A call that arrived."""

    success: bool = True
    message: str
    origin: str | None = None


@router.get("/validate", summary="Whether the caller's page may call this server")
def validate(services: ServicesDep, request: Request) -> CorsAnswer:
    """Judge the `Origin` of this request as the server does for every request."""
    configured = services.settings.cors_origins
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    allowed = {one.rstrip("/").lower() for one in configured}
    valid = origin is None or may_write(origin, host, allowed)
    listed = origin is not None and origin.lower() in allowed
    fault = f"Pages of {printable(origin or '')} may not use this server: WAN22_CORS_ORIGINS does not list them"
    return CorsAnswer(
        cors_valid=valid,
        errors=[] if valid else [fault],
        current_request=CorsRequest(
            origin=None if origin is None else printable(origin), host=printable(host), method=request.method
        ),
        configuration=CorsConfiguration(
            enabled=bool(configured), allowed_origins=configured, allowed_methods=list(METHODS) if configured else []
        ),
        diagnostics=CorsDiagnostics(same_origin=valid and origin is not None and not listed, origin_listed=listed),
    )


@router.post("/test", summary="Whether a changing call gets through")
def test(request: Request) -> CorsTest:
    """Answer a call that changes nothing; a page that may not call this server gets 403 instead."""
    origin = request.headers.get("origin")
    return CorsTest(message="The call was accepted", origin=None if origin is None else printable(origin))
