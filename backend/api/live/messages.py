"""The messages of the live updates: every type with its topic, its shape and its purpose, and how one is encoded.

A type is in the table here when something sends it, and no topic is offered that stays silent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from backend.api.live import shapes
from backend.api.system.health import SystemStats

#: Version of the messages. It grows when a field changes its meaning or goes; new fields and types leave it.
VERSION: Final = 1

PROGRESS_TOPIC: Final = "generation_progress"
QUEUE_TOPIC: Final = "queue_updates"
ALERTS_TOPIC: Final = "alerts"
DOWNLOAD_TOPIC: Final = "download_progress"
STATS_TOPIC: Final = "system_stats"
MODELS_TOPIC: Final = "model_status"
HEALTH_TOPIC: Final = "health_monitoring"
GALLERY_TOPIC: Final = "gallery_updates"
FALLBACK_TOPIC: Final = "fallback_notifications"
ANALYTICS_TOPIC: Final = "analytics_updates"


@dataclass(frozen=True, slots=True)
class MessageType:
    """One type of message."""

    name: str
    shape: type[BaseModel]
    purpose: str


#: What answers a client, or is about its connection.
CONTROL: Final = (
    MessageType("connection_established", shapes.Welcome, "The first message"),
    MessageType("subscription_response", shapes.Subscribed, "A subscription begins"),
    MessageType("unsubscription_response", shapes.Unsubscribed, "A subscription has ended"),
    MessageType("pong", shapes.Pong, "The answer to `ping`"),
    MessageType("status_response", shapes.ConnectionStatus, "The answer to `get_status`"),
    MessageType("error", shapes.Complaint, "A message of the client was not understood; the connection stays"),
    MessageType("heartbeat", shapes.SignOfLife, "Sent at an interval, so that a client notices a dead connection"),
    MessageType("replay_gap", shapes.ReplayGap, "What a client has missed can be sent only in part, or not at all"),
    MessageType("connection_closing", shapes.Closing, "The last message of an event stream"),
    MessageType("replay_complete", shapes.ReplayComplete, "Everything that was missed has been sent"),
)
#: What every client gets.
FOR_ALL: Final = (
    MessageType("task_update", shapes.TaskUpdate, "The state of a task changed; not sent for each step"),
    MessageType("model_download_complete", shapes.DownloadEnd, "A download ended"),
)
#: What the subscribers of a topic get.
TOPICS: Final[dict[str, tuple[MessageType, ...]]] = {
    STATS_TOPIC: (
        MessageType("system_stats_update", SystemStats, "How busy the machine is"),
        MessageType("vram_monitoring", shapes.CardMemory, "The memory of a card, each second while a task runs"),
    ),
    PROGRESS_TOPIC: (
        MessageType("generation_progress", shapes.OverallProgress, "Percent of the whole task"),
        MessageType("detailed_generation_progress", shapes.DetailedProgress, "Stage, step, seconds left, result"),
        MessageType("generation_stage", shapes.StageChange, "A task entered another stage"),
        MessageType("model_loading_progress", shapes.ModelLoading, "A task's model is being loaded, or has been"),
    ),
    QUEUE_TOPIC: (MessageType("queue_update", shapes.QueueNumbers, "How many tasks are in each state"),),
    ALERTS_TOPIC: (
        MessageType("alert", shapes.AlertData, "Something needs attention: memory, health, a mock, a download"),
    ),
    GALLERY_TOPIC: (
        MessageType("output_update", shapes.OutputChange, "A video was trashed, restored, deleted or marked"),
    ),
    MODELS_TOPIC: (
        MessageType("batch_model_status_update", shapes.ModelBatch, "All models, for a new subscriber"),
        MessageType("model_status_update", shapes.ModelStatusData, "A model's files, use or place in memory changed"),
        MessageType("model_availability_change", shapes.AvailabilityChange, "A model can be used, or no longer"),
    ),
    DOWNLOAD_TOPIC: (
        MessageType("download_progress_update", shapes.DownloadProgressData, "Percent, speed and seconds left"),
        MessageType("download_status_change", shapes.DownloadChange, "A download began, paused, ended …"),
        MessageType("download_retry", shapes.DownloadRetryData, "The hub failed, and is asked again"),
    ),
    HEALTH_TOPIC: (
        MessageType("system_health_report", shapes.HealthReport, "What the health monitor finds, when that changes"),
        MessageType("health_monitoring_alert", shapes.ModelHealthAlert, "The health of a model changed"),
        MessageType("corruption_detection", shapes.Corruption, "Files of a model were found damaged"),
    ),
    FALLBACK_TOPIC: (
        MessageType("fallback_strategy", shapes.FallbackNews, "A task is made by another model, or is a mock"),
        MessageType("alternative_model_suggestion", shapes.AlternativeNews, "A task failed that another model can do"),
        MessageType("model_queue_update", shapes.DownloadPlace, "A download's place among those that wait"),
    ),
    ANALYTICS_TOPIC: (
        MessageType("usage_statistics_update", shapes.UsageNumbers, "Use of the models, when a task has ended"),
        MessageType("analytics_update", shapes.DayNumbers, "How the tasks of the last day went, when one has ended"),
    ),
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to clients, not encoded yet; a `topic` of None addresses all of them."""

    type: str
    topic: str | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """One encoded message."""

    kind: str
    text: str  #: JSON, ASCII only
    cursor: int | None = None  #: the number to continue after, for one who has this message and all before it


def encode(kind: str, event_id: int, data: dict[str, Any], *, flat: bool = False, more: bool = False) -> LiveMessage:
    """Encode a message.

    `flat` repeats the data at the top level, as the oldest clients expect. `more`: others of the same event follow.
    """
    body: dict[str, Any] = {"type": kind, "version": VERSION, "event_id": event_id, "data": data}
    if more:
        body["more"] = True
    # ASCII only: a lone surrogate cannot be encoded as UTF-8.
    text = json.dumps((data if flat else {}) | body, allow_nan=False)
    return LiveMessage(kind, text, None if more else event_id)
