"""Writes messages to the webhooks of a task in the transaction that changes the task: what is committed is sent.

Knows what a message says, not how it is sent.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, insert, select

from backend.core.access.caller import current_caller
from backend.core.domain import EventType, WebhookEvent, iso, utcnow
from backend.core.requests.webhooks import Webhook
from backend.store.rows import moment, storable
from backend.store.tables import database_now, deliveries, webhooks

#: The events that make a message.
_MESSAGES: Final = {
    EventType.STARTED: WebhookEvent.STARTED,
    EventType.PAUSED: WebhookEvent.PAUSED,
    EventType.COMPLETED: WebhookEvent.COMPLETED,
    EventType.FAILED: WebhookEvent.FAILED,
    EventType.CANCELLED: WebhookEvent.CANCELLED,
}
#: What a message says of an error, beside its code.
_OF_ERRORS: Final = ("message", "retryable", "suggestions")
#: Limits of what a message quotes, so that none is larger than about 10 KB.
_TEXT_CHARS: Final = 1000
_LIST_ITEMS: Final = 8


def subscribe(connection: Connection, task_id: str, hook: Webhook | None) -> None:
    """Store the webhook of a new task; its messages will belong to the current caller."""
    if hook is not None:
        values: dict[str, Any] = {"url": hook.url, "events": list(hook.events), "secret": hook.secret}
        values |= {"task_id": task_id, "owner": current_caller().key_id}
        connection.execute(insert(webhooks).values(values))


def announce(connection: Connection, row: Row[Any], event: EventType, data: dict[str, Any]) -> None:
    """Queue the messages about an event of a task, whose changed row this is."""
    kind = _MESSAGES.get(event)
    if kind is None:
        return
    for hook in connection.execute(select(webhooks).where(webhooks.c.task_id == row.id).order_by(webhooks.c.number)):
        if kind not in (hook.events or ()):
            continue
        connection.execute(
            insert(deliveries).values(
                id=f"msg_{secrets.token_hex(16)}",
                task_id=row.id,
                event=row.last_event,
                type=kind,
                url=hook.url,
                host=(urlsplit(hook.url).hostname or "")[:255],
                secret=hook.secret,
                owner=hook.owner,
                body=json.dumps({"type": kind, "timestamp": iso(utcnow()), "data": _data(row, event, data)}),
                state="pending",
                due_at=database_now(),
                created_at=database_now(),
            )
        )


def _data(row: Row[Any], event: EventType, data: dict[str, Any]) -> dict[str, Any]:
    """Describe the task, without its prompt: a webhook may lead to a third party's log."""
    described: dict[str, Any] = {
        "task_id": row.id,
        "event": row.last_event,
        "status": str(row.status),
        "model_type": row.model,
        "attempt": row.attempt,
        **{
            name: iso(moment(at)) for name in ("created_at", "started_at", "completed_at") if (at := row._mapping[name])
        },
    }
    if event is EventType.FAILED:
        described["error"] = _bounded({"code": data.get("error")} | {name: data.get(name) for name in _OF_ERRORS})
    if event is EventType.COMPLETED:
        described["video"] = {"id": row.id, "url": f"/api/v1/outputs/{row.id}/download"} | _bounded(data)
    return described


def _bounded(value: Any) -> Any:
    """Cut long texts and lists."""
    if isinstance(value, str):
        return storable(value)[:_TEXT_CHARS]
    if isinstance(value, dict):
        return {name: _bounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(one) for one in value[:_LIST_ITEMS]]
    return value
