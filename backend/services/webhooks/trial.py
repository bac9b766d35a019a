"""Sends one message to a webhook at once, so that somebody who sets one up sees whether it arrives.

The same rules, signature and limits as for the messages of tasks; nothing is stored, and nothing is sent again.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Final

from backend.core.domain import iso, utcnow
from backend.services.outbound.connection import Resolver, ask_name_server
from backend.services.outbound.exchange import SECONDS, PinnedCaller, Unanswered
from backend.services.outbound.targets import OutboundRules
from backend.services.webhooks.retries import Meaning, judge
from backend.services.webhooks.signing import ServerSecret, message_headers

#: Type of the message; no task sends it.
TEST: Final = "webhook.test"


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a test message."""

    id: str  #: its `webhook-id`
    delivered: bool
    status: int | None  #: of the answer
    reason: str | None  #: why it was not delivered
    seconds: float


def send_test(
    url: str,
    rules: OutboundRules,
    secret: ServerSecret,
    own: str | None = None,
    *,
    resolve: Resolver = ask_name_server,
    seconds: float = SECONDS,
) -> Trial:
    """Send a test message, signed with the secret of the server or the webhook's `own`.

    Raises:
        UrlNotAllowed: this server may not call the address.
        InvalidRequest: the secret has another form.
        BadSettings: the secret of the server cannot be read.
    """
    message = f"msg_{secrets.token_hex(16)}"
    body = json.dumps({"type": TEST, "timestamp": iso(utcnow()), "data": {"note": "a message to try a webhook"}})
    headers = message_headers(secret.keys_of(own), message, body)
    began = time.monotonic()
    try:
        answer = PinnedCaller(rules, resolve=resolve, seconds=seconds).post(url, body.encode(), headers)
    except Unanswered as error:
        return Trial(message, False, None, str(error), time.monotonic() - began)
    meaning, reason = judge(answer)
    return Trial(message, meaning is Meaning.DELIVERED, answer.status, reason or None, time.monotonic() - began)
