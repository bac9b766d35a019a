"""What stands in for the API key where a browser cannot send it: session cookie, socket subprotocol, signed links.

Everything is derived from the key, so nothing is stored, and another key ends all sessions and links.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

from backend.core.settings import Settings

COOKIE = "wan22_session"
SESSION_SECONDS = 12 * 3600
#: How long a link to a video or a picture works, at least.
LINK_SECONDS = 3600
#: Links of the same few minutes are equal, so that browsers can cache what they lead to.
_SAME_LINK_SECONDS = 600
SUBPROTOCOL = "wan22"
#: A client of the socket offers `wan22` and this followed by the key in base64url.
KEY_SUBPROTOCOL = "wan22.key."


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """Issues and checks everything that is derived from the key; without a key all checks fail."""

    key: bytes | None = None

    @classmethod
    def of(cls, settings: Settings) -> AccessTokens:
        """Return the tokens of the operator's key."""
        return cls(settings.api_key.get_secret_value().encode() if settings.api_key else None)

    def is_key(self, sent: str) -> bool:
        """Whether this is the key, compared in constant time, so that timing reveals nothing about it."""
        if self.key is None:
            return False
        # Headers are read as Latin-1, while most clients send a key with accents as UTF-8.
        raw = sent.encode("latin-1", "replace")
        return hmac.compare_digest(raw, self.key) or hmac.compare_digest(sent.encode("utf-8", "replace"), self.key)

    def signature(self, path: str) -> str:
        """Return the query that opens a path for about an hour; empty without a key."""
        if self.key is None:
            return ""
        expires = int(time.time() + LINK_SECONDS) // _SAME_LINK_SECONDS * _SAME_LINK_SECONDS + _SAME_LINK_SECONDS
        return f"?expires={expires}&signature={self._digest('link', path, expires)}"

    def opens(self, path: str, query: str) -> bool:
        """Whether the query carries a valid signature for the path."""
        values = dict(parse_qsl(query))
        return self._valid("link", path, values.get("expires", ""), values.get("signature", ""))

    def session(self) -> str:
        """Return the value of a new session cookie."""
        expires = int(time.time()) + SESSION_SECONDS
        return f"{expires}.{self._digest('session', '', expires)}"

    def is_session(self, cookie: str) -> bool:
        """Whether this is the cookie of a session that has not ended."""
        expires, _, digest = cookie.partition(".")
        return self._valid("session", "", expires, digest)

    def in_subprotocols(self, offered: list[str]) -> bool:
        """Whether a socket offers the key as a subprotocol."""
        for name in offered:
            if name.startswith(KEY_SUBPROTOCOL):
                encoded = name.removeprefix(KEY_SUBPROTOCOL)
                try:
                    sent = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
                except (ValueError, binascii.Error):
                    continue
                if self.key is not None and hmac.compare_digest(sent, self.key):
                    return True
        return False

    def _valid(self, purpose: str, path: str, expires: str, digest: str) -> bool:
        if self.key is None or not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        expected = self._digest(purpose, path, int(expires))
        return hmac.compare_digest(digest.encode("utf-8", "replace"), expected.encode()) and int(expires) > time.time()

    def _digest(self, purpose: str, path: str, expires: int) -> str:
        return hmac.new(self.key or b"", f"{purpose}\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def accepted_subprotocol(offered: list[str]) -> str | None:
    """Return the subprotocol that the server confirms; browsers end a socket when it confirms none they offered."""
    ours = [name for name in offered if name == SUBPROTOCOL or name.startswith(KEY_SUBPROTOCOL)]
    return SUBPROTOCOL if SUBPROTOCOL in ours else next(iter(ours), None)
