"""The text of an API key: how it is drawn, what is kept of it, and how it is recognised."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"wan22_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just drawn; its text is shown once and stored nowhere."""

    id: str
    text: str

    @property
    def digest(self) -> str:
        """What is stored of it."""
        return digest_of(self.text)


def draw_key() -> NewKey:
    """Draw a key of 256 random bits; its id is part of it, so that it is found without comparing it with others."""
    key_id = secrets.token_hex(6)
    return NewKey(key_id, f"wan22_{key_id}_{secrets.token_urlsafe(32)}")


def digest_of(text: str) -> str:
    """Return the SHA-256 of a key. A slow hash protects what can be guessed; nobody guesses 256 random bits."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def key_id_in(text: str) -> str | None:
    """Return the id in the text of a key; None where it is no key of ours."""
    found = _FORM.fullmatch(text)
    return None if found is None else found[1]
