"""What stands in for a key where a browser cannot send it: session cookies and signed links.

Both are derived from a secret, so nothing is stored for them. Pure: knows neither HTTP nor the database.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

SESSION_COOKIE: Final = "wan22_session"
SESSION_SECONDS: Final = 12 * 3600
#: How long a link to a video or a picture works, at least.
LINK_SECONDS: Final = 3600
#: Links of the same few minutes are equal, so that browsers can cache what they lead to.
_SAME_LINK_SECONDS: Final = 600
#: Names of holders that are not stored keys: the key in the environment, and commands of the home's own user.
OPERATOR_KEY: Final = "operator"
LOCAL_USER: Final = "local"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Issues and checks what stands in for one key."""

    holder: str  #: the id of the key, `OPERATOR_KEY` or `LOCAL_USER`
    secret: bytes

    def signature(self, path: str) -> str:
        """Return the query that opens a path for about an hour."""
        expires = int(time.time() + LINK_SECONDS) // _SAME_LINK_SECONDS * _SAME_LINK_SECONDS + _SAME_LINK_SECONDS
        return f"?holder={self.holder}&expires={expires}&signature={self._digest('link', path, expires)}"

    def session(self) -> str:
        """Return the value of a new session cookie."""
        expires = int(time.time()) + SESSION_SECONDS
        return f"{self.holder}.{expires}.{self._digest('session', '', expires)}"

    def opens(self, path: str, expires: str, digest: str) -> bool:
        """Whether a signature is valid for a path now."""
        return self._valid("link", path, expires, digest)

    def is_session(self, expires: str, digest: str) -> bool:
        """Whether a session is ours and has not ended."""
        return self._valid("session", "", expires, digest)

    def _valid(self, purpose: str, path: str, expires: str, digest: str) -> bool:
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        expected = self._digest(purpose, path, int(expires))
        return hmac.compare_digest(digest.encode("utf-8", "replace"), expected.encode()) and int(expires) > time.time()

    def _digest(self, purpose: str, path: str, expires: int) -> str:
        return hmac.new(self.secret, f"{purpose}\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client brings to be recognised by."""

    kind: str  #: key, session or link
    text: str = ""  #: the key itself
    holder: str = ""  #: of a session or a link
    expires: str = ""
    digest: str = ""
    path: str = ""  #: that a link is to open

    @property
    def ends_at(self) -> float:
        """When it stops to work by itself, in seconds since 1970."""
        return float(self.expires) if self.kind == "session" and self.expires.isdigit() else float("inf")


def session_credential(cookie: str) -> Credential:
    """Read the value of a session cookie."""
    holder, _, rest = cookie.partition(".")
    expires, _, digest = rest.partition(".")
    return Credential("session", holder=holder, expires=expires, digest=digest)


def link_credential(path: str, query: str) -> Credential:
    """Read the query of a signed link."""
    values = dict(parse_qsl(query))
    names = {"holder": values.get("holder", ""), "expires": values.get("expires", "")}
    return Credential("link", path=path, digest=values.get("signature", ""), **names)
