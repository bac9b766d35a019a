"""Recognises callers: by the key in the environment, by stored keys, and by what stands in for a key.

Holds the stored keys in memory and reads them again every second, so that a key made or revoked by any process counts
at once. Once a key was stored, nobody is served without one, even when all are revoked.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import structlog

from backend.core.access.caller import ANYBODY, OPERATOR, Caller
from backend.core.access.text import digest_of, key_id_in
from backend.core.access.tokens import LOCAL_USER, OPERATOR_KEY, Credential, Tokens
from backend.core.domain import utcnow
from backend.core.errors.base import WanError
from backend.core.paths import Home
from backend.core.repeating import Repeating
from backend.core.settings import Settings
from backend.services.access.secret import home_secret, secret_for
from backend.store.access.keys import ApiKey, KeyStore

REFRESH_SECONDS: Final = 1.0
#: Interval between two records of when keys were last used, in seconds.
_NOTE_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class KeyRing:
    """The keys that open this server. Any thread may call; only `refresh`, `start` and `stop` use disk and database."""

    def __init__(self, settings: Settings, home: Home, store: KeyStore) -> None:
        self._store = store
        self._home = home
        sent = settings.api_key
        self._operator = sent.get_secret_value().encode() if sent is not None else None
        self._keys: dict[str, ApiKey] = {}
        self._stored = True  # before they were read, nobody gets in without the operator's
        self._secret = b""
        self._refreshing = threading.Lock()
        self._used: dict[str, datetime] = {}
        self._noted = time.monotonic()
        self._watched: dict[object, tuple[Caller, float, Callable[[], None]]] = {}
        self._thread = Repeating("keys", self._look, REFRESH_SECONDS)
        self.refreshed = float("-inf")  #: when the keys were read, by the monotonic clock

    def start(self) -> None:
        """Read the keys, and follow their changes from now on."""
        try:
            self._secret = home_secret(self._home)
        except OSError as error:  # sessions and links then end with this process
            log.warning("access.secret_not_kept", reason=error.strerror)
            self._secret = secrets.token_bytes(32)
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop following; record the last uses."""
        self._thread.stop()
        self._note_use()

    def refresh(self, since: float = float("inf")) -> None:
        """Read the keys again, unless they were read after a moment of the monotonic clock.

        Raises:
            StoreUnavailable: the database does not answer; the known keys stay.
        """
        with self._refreshing:
            if self.refreshed >= since:
                return
            began = time.monotonic()
            self._keys = {key.id: key for key in self._store.all()}
            self._stored = self._store.any()
            self.refreshed = began
        self._end_what_is_over()

    @property
    def locked(self) -> bool:
        """Whether a key is needed."""
        return self._operator is not None or self._stored

    def recognise(self, credential: Credential | None) -> Caller | None:
        """Return who brings a credential; None where it does not hold. Without any key everybody is served."""
        if not self.locked:
            return ANYBODY
        if credential is None:
            return None
        if credential.kind == "key":
            return self._of_key(credential.text)
        tokens = self._tokens(credential.holder)
        if tokens is None:
            return None
        expires, digest = credential.expires, credential.digest
        if credential.kind == "session":
            holds = tokens.is_session(expires, digest)
        else:
            holds = tokens.opens(credential.path, expires, digest)
        return self._holder(tokens.holder) if holds else None

    def tokens_of(self, caller: Caller) -> Tokens | None:
        """Return what makes sessions and links for a caller; None for one that needs none."""
        if caller is ANYBODY:
            return None
        return self._tokens(caller.key_id or (OPERATOR_KEY if self._operator is not None else LOCAL_USER))

    def holds(self, caller: Caller) -> bool:
        """Whether a caller that was recognised would still be."""
        if caller is ANYBODY:
            return not self.locked
        return caller is OPERATOR or self._valid(caller.key_id) is not None

    @contextmanager
    def watching(self, caller: Caller, ends_at: float, end: Callable[[], None]) -> Iterator[None]:
        """Call `end`, from another thread, when the caller's right ends while the block runs."""
        entry = object()
        self._watched[entry] = (caller, ends_at, end)
        try:
            yield
        finally:
            self._watched.pop(entry, None)

    def _of_key(self, text: str) -> Caller | None:
        # Headers are read as Latin-1, while most clients send a key with accents as UTF-8.
        raw, read = text.encode("latin-1", "replace"), text.encode("utf-8", "replace")
        # Compared in constant time, so that timing reveals nothing about the key.
        operator = self._operator
        if operator is not None and (hmac.compare_digest(raw, operator) or hmac.compare_digest(read, operator)):
            return OPERATOR
        key = self._valid(key_id_in(text))
        digest = digest_of(text)
        if key is None or not hmac.compare_digest(digest, key.digest):
            return None
        self._used[key.id] = utcnow()
        return key.caller

    def _tokens(self, holder: str) -> Tokens | None:
        if holder == OPERATOR_KEY:
            return None if self._operator is None else Tokens(holder, self._operator)
        if holder == LOCAL_USER or self._valid(holder) is not None:
            return Tokens(holder, secret_for(holder, self._secret)) if self._secret else None
        return None

    def _holder(self, holder: str) -> Caller | None:
        if holder in (OPERATOR_KEY, LOCAL_USER):
            return OPERATOR
        key = self._valid(holder)
        return None if key is None else key.caller

    def _valid(self, key_id: str | None) -> ApiKey | None:
        key = self._keys.get(key_id) if key_id else None
        return key if key is not None and key.state == "valid" else None

    def _look(self) -> None:
        try:
            self.refresh()
        except WanError as error:
            log.warning("access.keys_unreadable", code=error.code)
            self._end_what_is_over()
        if time.monotonic() - self._noted >= _NOTE_SECONDS:
            self._note_use()

    def _note_use(self) -> None:
        self._noted = time.monotonic()
        used, self._used = self._used, {}
        if used:
            try:
                self._store.note_use(used)
            except WanError as error:
                log.warning("access.use_not_noted", code=error.code)

    def _end_what_is_over(self) -> None:
        now = time.time()
        for caller, ends_at, end in list(self._watched.values()):
            if now >= ends_at or not self.holds(caller):
                end()
