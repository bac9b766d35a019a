"""Signatures by the Standard Webhooks specification, and the secret of this server that makes them.

The secret is printed by a command, and is in no log, no answer and no message.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import time
from typing import Final

from backend import __version__
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.files import PART_SUFFIX, write_bytes
from backend.core.paths import Home
from backend.core.requests.webhooks import SECRET_PREFIX, Webhook, key_of
from backend.core.settings import Settings
from backend.services.outbound.targets import OutboundRules

_KEY_BYTES: Final = 32


def check_webhook(webhook: Webhook | None, rules: OutboundRules) -> None:
    """Refuse a webhook that could never be delivered.

    Raises:
        UrlNotAllowed: this server may not call its address.
        InvalidRequest: its secret has another form.
    """
    if webhook is not None:
        rules.check(webhook.url)
        if webhook.secret is not None:
            key_of(webhook.secret)


def new_secret() -> str:
    """Return a new random secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def signed_headers(keys: list[bytes], message_id: str, timestamp: int, body: str) -> dict[str, str]:
    """Return the headers by which a receiver verifies a message; one signature for each key."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    marks = [f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}" for key in keys]
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(marks)}


def message_headers(keys: list[bytes], message_id: str, body: str) -> dict[str, str]:
    """Return all headers of a message that is sent now."""
    signed = signed_headers(keys, message_id, int(time.time()), body)
    return {"Content-Type": "application/json", "User-Agent": f"wan22/{__version__}", **signed}


class ServerSecret:
    """The secret of this server: the setting, or a file of its home that is made when it is first needed."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings = settings
        self._file = home.webhook_secret_file

    def texts(self) -> list[str]:
        """Return the secrets that sign, the newest first.

        Raises:
            BadSettings: the file of the secret has another content.
        """
        given = self._settings.webhook_secret
        if given is not None:
            return given.get_secret_value().split()
        try:
            found = self._stored()
            list(map(key_of, found))
        except (InvalidRequest, UnicodeDecodeError):
            found = []
        if not found:
            raise BadSettings(
                f"{self._file.name} in the home folder holds no secret of a webhook",
                suggestions=("Put the secret back, or delete the file: a new secret is made then.",),
            )
        return found

    def keys_of(self, own: str | None) -> list[bytes]:
        """Return the keys that sign a message: that of the webhook's own secret, or those of `texts`; raises as it."""
        return list(map(key_of, self.texts() if own is None else [own]))

    def rotate(self) -> str:
        """Put a new secret before the present one, and return it; both sign from now on, an older one no more.

        Raises:
            BadSettings: the secret is a setting, or its file has another content.
        """
        if self._settings.webhook_secret is not None:
            raise BadSettings("WAN22_WEBHOOK_SECRET is set: replace the secret there, two with a space between them")
        made = new_secret()
        write_bytes(self._file, _as_file(made, *self.texts()[:1]), mode=0o600)
        return made

    def _stored(self) -> list[str]:
        if not self._file.exists():
            part = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
            write_bytes(part, _as_file(new_secret()), mode=0o600)
            try:
                os.link(part, self._file)  # unlike a rename, this never replaces the secret of another process
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return self._file.read_text("ascii").split()


def _as_file(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
