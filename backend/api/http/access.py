"""Reads from a request what it is to be recognised by, and from its path what that has to allow.

One canonical place for a key: `Authorization: Bearer`. Where a browser cannot send it, a session cookie, a subprotocol
of the socket or a signed link stands in for it. Decides nothing itself.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from backend.core.access.tokens import SESSION_COOKIE, Credential, link_credential, session_credential

SUBPROTOCOL: Final = "wan22"
#: A client of the socket offers `wan22` and this followed by the key in base64url.
KEY_SUBPROTOCOL: Final = "wan22.key."


def credential_of(scope: Scope, headers: Headers, path: str, *, signed: bool) -> Credential | None:
    """Return what a client brings; None where it brings nothing.

    A header decides alone: a wrong key beside a good cookie is a wrong key. Two headers are no key.
    """
    sent = headers.getlist("authorization")
    if sent:
        scheme, _, key = sent[0].partition(" ")
        return Credential("key", key.strip(" ") if len(sent) == 1 and scheme.lower() == "bearer" else "")
    if scope["type"] == "websocket":
        offered = [name for name in scope.get("subprotocols", []) if name.startswith(KEY_SUBPROTOCOL)]
        if offered:
            return Credential("key", _decoded(offered[0]) if len(offered) == 1 else "")
    if signed:
        return link_credential(path, scope["query_string"].decode("latin-1"))
    cookie = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE)
    return None if cookie is None else session_credential(cookie)


def accepted_subprotocol(offered: list[str]) -> str | None:
    """Return the subprotocol that the server confirms; browsers end a socket when it confirms none they offered."""
    ours = [name for name in offered if name == SUBPROTOCOL or name.startswith(KEY_SUBPROTOCOL)]
    return SUBPROTOCOL if SUBPROTOCOL in ours else next(iter(ours), None)


def _decoded(name: str) -> str:
    encoded = name.removeprefix(KEY_SUBPROTOCOL)
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-8", "replace")
    except (ValueError, binascii.Error):
        return ""
