"""The webhook of a request: an address alone, or an object with the types of messages and a secret."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from backend.core.domain import ENDINGS, WebhookEvent
from backend.core.requests.webhooks import Webhook


class WebhookBody(BaseModel):
    """An address that is told what becomes of a task."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str = Field(max_length=2000, description="http or https; its host must be allowed by the operator")
    events: list[WebhookEvent] = Field(
        list(ENDINGS), min_length=1, max_length=len(WebhookEvent), description="Types of messages; the three endings"
    )
    secret: str | None = Field(
        None, max_length=200, description="`whsec_` and 24 to 64 bytes in base64; the server's secret when left out"
    )


def _webhook(value: object) -> object:
    """Accept an address alone, and in a form an object as JSON text."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value) if value.lstrip().startswith("{") else {"url": value.strip()}
    except (ValueError, RecursionError):
        raise ValueError("must be an address, or an object as JSON text") from None


WebhookField = Annotated[WebhookBody | None, BeforeValidator(_webhook)]


def choice_of(body: WebhookBody | None) -> Webhook | None:
    """Convert the body to a domain value."""
    return None if body is None else Webhook(body.url, tuple(dict.fromkeys(body.events)), body.secret)
