"""Routes of the API keys: list, create, revoke; for keys with the scope `admin` alone."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.store.access.keys import LONGEST_NAME

router = Routes(prefix="/keys", tags=["system"])

_MOST: Final = 10**9


class KeyInfo(BaseModel):
    """A key, without its text, which is stored nowhere."""

    id: str = Field(description="The part of the key behind `wan22_`; it is no secret")
    name: str
    scopes: list[Scope]
    state: str = Field(description="valid, expired or revoked")
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    last_used_at: Timestamp | None = Field(None, description="To the minute")
    requests_per_minute: int | None = Field(None, description="Absent without a limit, as below")
    gpu_seconds_per_day: float | None = None
    waiting_tasks: int | None = None


class KeyList(BaseModel):
    """All keys that were ever made, the oldest first."""

    keys: list[KeyInfo]


class KeyMade(KeyInfo):
    """A new key."""

    key: str = Field(description="The key itself; this answer alone shows it")


class KeyBody(BaseModel):
    """What a new key is called and may do."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(max_length=LONGEST_NAME, description="Unique among the valid keys", examples=["night batch"])
    scopes: list[Scope] = Field(
        max_length=len(Scope),
        description="read: look at its own things; generate: queue tasks, delete videos; models: download and delete "
        "models and LoRAs; admin: everything, on everybody's things",
        examples=[["generate"]],
    )
    expires_in_days: float | None = Field(None, gt=0, le=36_500, allow_inf_nan=False, description="Without it: never")
    requests_per_minute: int | None = Field(None, ge=1, le=_MOST)
    gpu_seconds_per_day: float | None = Field(
        None, ge=0, le=_MOST, allow_inf_nan=False, description="Seconds that workers may work for it in a UTC day"
    )
    waiting_tasks: int | None = Field(None, ge=1, le=_MOST, description="How many unfinished tasks it may have")


@router.get("", summary="All API keys")
def list_keys(services: ServicesDep) -> KeyList:
    """List the keys, revoked ones too, with when each was last used."""
    return KeyList(keys=[KeyInfo(**key.to_json()) for key in services.key_store.all()])


@router.post("", summary="Create an API key", responses=refusals({409: "A valid key has this name"}))
def create_key(body: KeyBody, services: ServicesDep) -> KeyMade:
    """Create a key and show it once. From the first key on, this server serves nobody without one."""
    limits = KeyLimits(body.requests_per_minute, body.gpu_seconds_per_day, body.waiting_tasks)
    drawn = draw_key()
    seconds = None if body.expires_in_days is None else body.expires_in_days * 86_400
    made = services.key_store.create(drawn, body.name, body.scopes, limits, seconds)
    services.keys.refresh()
    return KeyMade(**made.to_json(), key=drawn.text)


@router.delete("/{key_id}", summary="Revoke an API key", responses=refusals({404: "There is no such key"}))
def revoke_key(
    key_id: Annotated[str, Path(max_length=64, description="Id of the key")], services: ServicesDep
) -> KeyInfo:
    """End a key at once, with its sessions, links, sockets and streams. Its tasks and videos stay, for `admin`."""
    revoked = services.key_store.revoke(key_id)
    services.keys.refresh()
    return KeyInfo(**revoked.to_json())
