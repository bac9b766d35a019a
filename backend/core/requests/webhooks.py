"""The webhook of a request, and the form of the secrets that sign its messages.

Knows neither signatures nor which addresses may be called.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from backend.core.domain import ENDINGS, WebhookEvent
from backend.core.errors.requests import InvalidRequest

#: What a secret begins with, by the Standard Webhooks specification.
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - no secret
#: Fewest and most bytes of a key, by the same specification.
_FEWEST, _MOST = 24, 64


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told what becomes of a task."""

    url: str = field(repr=False)  #: its path and query may hold a token
    events: tuple[WebhookEvent, ...] = ENDINGS
    secret: str | None = field(default=None, repr=False)  #: signs its messages instead of the server's secret


def key_of(secret: str) -> bytes:
    """Return the key in a secret.

    Raises:
        InvalidRequest: it has another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not _FEWEST <= len(key) <= _MOST:
        raise InvalidRequest(
            f"The secret of a webhook is {SECRET_PREFIX} and {_FEWEST} to {_MOST} bytes in base64",
            details={"field": "webhook.secret"},
        )
    return key
