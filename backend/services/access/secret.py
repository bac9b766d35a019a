"""The secret of a home, from which sessions, links and the right of its own user are derived.

Whoever can read it can act as the operator, as can whoever can write the database beside it: both belong to the user
who runs the server.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from typing import Final

import structlog

from backend.core.paths import Home

_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

log = structlog.get_logger(__name__)


def home_secret(home: Home) -> bytes:
    """Return the secret of a home; it is drawn the first time, and again where others could have read it.

    Raises:
        OSError: it can be neither read nor written.
    """
    found = _read(home)
    if found is not None:
        return found
    path = home.secret_file
    path.unlink(missing_ok=True)
    drawn = secrets.token_bytes(_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:  # another process was first
        return _read(home) or drawn
    with os.fdopen(descriptor, "wb") as file:
        file.write(drawn)
        file.flush()
        os.fsync(file.fileno())
    return drawn


def known_secret(home: Home) -> bytes | None:
    """Return the secret of a home as a command may use it; None where there is none, or it is not this user's."""
    try:
        return _read(home)
    except OSError:
        return None


def secret_for(holder: str, secret: bytes) -> bytes:
    """Derive the secret of one holder of sessions and links."""
    return hmac.new(secret, holder.encode(), hashlib.sha256).digest()


def _read(home: Home) -> bytes | None:
    path = home.secret_file
    try:
        # A link is followed by nobody: it could lead to a file whose content others know.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError:
        if path.is_symlink():
            log.warning("access.secret_is_a_link", file=path.name)
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        found, state = file.read(_BYTES + 1), os.fstat(file.fileno())
    if os.name == "posix" and (state.st_mode & _OTHERS or state.st_uid != os.geteuid()):
        log.warning("access.secret_was_readable", file=path.name, mode=oct(stat.S_IMODE(state.st_mode)))
        return None
    return found if len(found) == _BYTES else None
