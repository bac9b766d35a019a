"""Signatures by the Standard Webhooks specification, and the secrets that make them.

A secret is shown by a command and is in no log, no answer and no message.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from typing import Final

from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.files import write_bytes
from backend.core.paths import Home
from backend.core.requests.forms import Webhook
from backend.core.settings import Settings
from backend.services.outbound.targets import OutboundRules

PREFIX: Final = "whsec_"
#: Fewest and most bytes of a key, by the specification.
_FEWEST, _MOST = 24, 64


def key_of(secret: str) -> bytes:
    """Return the key in a secret.

    Raises:
        InvalidRequest: it has another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not _FEWEST <= len(key) <= _MOST:
        raise InvalidRequest(
            f"The secret of a webhook is {PREFIX} and {_FEWEST} to {_MOST} bytes in base64",
            details={"field": "webhook.secret"},
        )
    return key


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
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signed_headers(keys: list[bytes], message_id: str, timestamp: int, body: str) -> dict[str, str]:
    """Return the headers that let a receiver check a message; one signature for each key."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    marks = [f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}" for key in keys]
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(marks)}


class ServerSecret:
    """The secret of this server: the setting, or a file of its home that is made when it is first needed."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings = settings
        self._file = home.webhook_secret_file

    def texts(self) -> list[str]:
        """Return the secrets that sign, the newest first.

        Raises:
            BadSettings: there is a secret of another form.
        """
        set_one = self._settings.webhook_secret
        found = self._stored() if set_one is None else set_one.get_secret_value().split()
        try:
            list(map(key_of, found))
        except InvalidRequest as error:
            raise BadSettings(f"{'WAN22_WEBHOOK_SECRET' if set_one else self._file.name}: {error.message}") from None
        return found

    def keys(self) -> list[bytes]:
        """Return the keys of `texts`; raises as it."""
        return list(map(key_of, self.texts()))

    def rotate(self) -> str:
        """Put a new secret before the present one, and return it; both sign from now on, an older one no more.

        Raises:
            BadSettings: the secret is a setting, or has another form.
        """
        if self._settings.webhook_secret is not None:
            raise BadSettings("WAN22_WEBHOOK_SECRET is set: replace the secret there, two with a blank between them")
        made = new_secret()
        write_bytes(self._file, "\n".join([made, *self.texts()[:1]]).encode() + b"\n", mode=0o600)
        return made

    def _stored(self) -> list[str]:
        try:
            return self._file.read_text("ascii").split()
        except FileNotFoundError:
            pass
        try:
            made = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # another process made it meanwhile
            return self._file.read_text("ascii").split()
        with os.fdopen(made, "w") as file:
            file.write(new_secret() + "\n")
        return self._file.read_text("ascii").split()
