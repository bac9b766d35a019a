"""Which scope a path needs, for every door: `/api/v1`, the paths without it, `/v1`, the socket and the streams.

Looked up before routing, by the path alone, so that no route can forget it. A path that no line names is for `admin`;
a test walks the routes of the app and fails for one that only this rule catches.
"""

from __future__ import annotations

import re
from typing import Final

from backend.core.access.caller import Scope

_READ, _GENERATE, _MODELS, _ADMIN = Scope.READ, Scope.GENERATE, Scope.MODELS, Scope.ADMIN
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFIX: Final = re.compile(r"^(?:/api/v1|/api|/v1)(?=/)")
#: The beginning of a path without its prefix, and the scopes for reading and for changing; the first that fits holds.
_RULES: Final = tuple(
    (re.compile(rf"/(?:{names})(?:/.*)?", re.DOTALL), reading, changing)
    for names, reading, changing in (
        ("keys", _ADMIN, _ADMIN),
        ("session|prompt|outputs/batch|analytics|metrics|system/cors", _READ, _READ),
        ("performance/export", _READ, _READ),
        ("generation/policy|queue/pause|queue/resume", _READ, _ADMIN),
        ("generation|generate|queue|outputs|thumbnails|inputs|videos", _READ, _GENERATE),
        ("webhooks|boards|presets|prompts", _READ, _GENERATE),
        ("lora/[^/]+/preview|models/fallback", _READ, _READ),
        ("lora|models", _READ, _MODELS),
        ("ws|events|capabilities|config|health|system|optimization|workers|recovery|performance", _READ, _ADMIN),
    )
)


def stated_scope(method: str, path: str) -> Scope | None:
    """Return the scope that the table states for a request; None where no line names the path."""
    plain = _PREFIX.sub("", path)
    for pattern, reading, changing in _RULES:
        if pattern.fullmatch(plain):
            return reading if method in _READING else changing
    return None


def needed_scope(method: str, path: str) -> Scope:
    """Return the scope that a request needs."""
    return stated_scope(method, path) or _ADMIN
