"""Routes of webhooks: whether there are any, and the messages that were sent, wait to be sent, or were given up."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.core.domain import WebhookEvent, iso
from backend.store.clients.deliveries import Delivery, DeliveryState

router = Routes(prefix="/webhooks", tags=["webhooks"])

DeliveryId = Annotated[str, Path(description="Id of the message, which its receiver gets as `webhook-id`")]


class WebhookStatus(BaseModel):
    """Whether tasks can have webhooks, and how many messages there are."""

    enabled: bool = Field(description="Whether the operator allows any host; which ones is for the operator to know")
    pending: int
    delivered: int
    failed: int = Field(description="Given up; `redeliver` sends one again")


class DeliverySummary(BaseModel):
    """One message to one webhook."""

    id: str = Field(description="Its `webhook-id`, the same in every attempt")
    task_id: str
    event: int = Field(description="Number of the event within the task; orders its messages")
    type: WebhookEvent
    host: str = Field(description="Where it goes; the rest of the address may be a secret, and is not shown")
    state: DeliveryState
    attempts: int
    created_at: Timestamp
    next_attempt_at: Timestamp | None = Field(None, description="While it is pending")
    ended_at: Timestamp | None = None
    status: int | None = Field(None, description="HTTP status of the newest answer")
    reason: str | None = Field(None, description="Why the newest attempt failed")


class DeliveryList(BaseModel):
    """Messages, newest first."""

    deliveries: list[DeliverySummary]
    has_more: bool = Field(description="Whether there are more: ask with `before` = the id of the last of these")


class DeliveryDetail(DeliverySummary):
    """One message with what it says."""

    body: str = Field(description="The bytes that are sent, as text")


def _summary(one: Delivery) -> DeliverySummary:
    return DeliverySummary(
        id=one.id,
        task_id=one.task_id,
        event=one.event,
        type=WebhookEvent(one.type),
        host=one.host,
        state=one.state,
        attempts=one.attempts,
        created_at=iso(one.created_at),
        next_attempt_at=iso(one.due_at) if one.state is DeliveryState.PENDING else None,
        ended_at=None if one.ended_at is None else iso(one.ended_at),
        status=one.status,
        reason=one.reason,
    )


@router.get("", summary="Whether tasks can have webhooks")
def webhooks(services: ServicesDep) -> WebhookStatus:
    """Show whether webhooks are on, and how many messages of the caller are in which state."""
    counts = services.deliveries.counts()
    return WebhookStatus(
        enabled=bool(services.settings.outbound_hosts),
        pending=counts[DeliveryState.PENDING],
        delivered=counts[DeliveryState.DELIVERED],
        failed=counts[DeliveryState.FAILED],
    )


@router.get("/deliveries", summary="Messages to webhooks")
def deliveries(
    services: ServicesDep,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state; `failed` are given up")] = None,
    task_id: Annotated[str | None, Query(max_length=64, description="Only those about this task")] = None,
    before: Annotated[str | None, Query(max_length=64, description="Id of the last one of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most messages in the answer")] = 100,
) -> DeliveryList:
    """List the messages of the caller, newest first, with the reason why one was not delivered."""
    states = () if state is None else (state,)
    found = services.deliveries.list(states=states, task_id=task_id, before=before, limit=limit + 1)
    return DeliveryList(deliveries=[_summary(one) for one in found[:limit]], has_more=len(found) > limit)


@router.get("/deliveries/{delivery_id}", summary="One message to a webhook")
def delivery(delivery_id: DeliveryId, services: ServicesDep) -> DeliveryDetail:
    """Show a message with its body."""
    one = services.deliveries.get(delivery_id)
    return DeliveryDetail(**_summary(one).model_dump(), body=one.body)


@router.post("/deliveries/{delivery_id}/redeliver", summary="Send a message again")
def redeliver(delivery_id: DeliveryId, services: ServicesDep) -> DeliverySummary:
    """Send a message from the first attempt on, whatever became of it; it keeps its `webhook-id`."""
    return _summary(services.deliveries.redeliver(delivery_id))
