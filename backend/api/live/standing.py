"""What stands rather than happens, as WebSocket messages: models, their health, that of the server, use, cards.

The figures are those of the routes about the same things. A value that nothing measures is absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from pydantic import BaseModel

from backend.api.http.shapes import known
from backend.api.live.messages import ANALYTICS_TOPIC, FALLBACK_TOPIC, HEALTH_TOPIC, MODELS_TOPIC
from backend.api.live.watches import Message, Watched
from backend.api.models.advice import analytics
from backend.api.models.health import ModelHealth, health
from backend.api.models.status import ModelDetails, detailed_statuses
from backend.api.performance.reports import day_totals
from backend.api.system.recovery import health_view
from backend.core.domain import iso, utcnow
from backend.core.planning.hardware import Gpu
from backend.models.folder.manager import Presence
from backend.services.downloads.state import RUNNING
from backend.services.system.container import Services
from backend.services.system.host_stats import MIB

#: Share of a card's memory in use, in percent, above which it is called scarce, in the words of earlier clients.
_WARNING, _CRITICAL = 75.0, 90.0


def watched(services: Services) -> Watched:
    """Return the watch of each topic."""
    return {
        MODELS_TOPIC: partial(ModelWatch, services),
        HEALTH_TOPIC: partial(HealthWatch, services),
        ANALYTICS_TOPIC: partial(UseWatch, services),
        FALLBACK_TOPIC: partial(PlacesWatch, services),
    }


class ModelWatch:
    """Whether each model is installed, loaded and in use."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._models: dict[str, ModelDetails] = {}

    def look(self) -> list[Message]:
        """Return the models that have changed, each with its availability if that changed."""
        before, self._models = self._models, detailed_statuses(self._services).models
        messages: list[Message] = []
        for name, model in self._models.items():
            old = before.get(name)
            if old is None or old == model:
                continue
            messages.append(("model_status_update", _dated(model)))
            if old.availability_status != model.availability_status:
                change = {
                    "model_id": name,
                    "old_availability": old.availability_status,
                    "new_availability": model.availability_status,
                    "reason": model.error_message or "its files are complete",
                }
                messages.append(("model_availability_change", change | {"timestamp": iso(utcnow())}))
        return messages

    def state(self) -> list[Message]:
        """Return all models in one message."""
        models = [_plain(model) for model in self._models.values()]
        data = {"models": models, "count": len(models), "timestamp": iso(utcnow())}
        return [("batch_model_status_update", data)]


class HealthWatch:
    """What is wrong with the server and with the files of its models."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._models: dict[str, ModelHealth] = {}
        self._report: dict[str, Any] = {}

    def look(self) -> list[Message]:
        """Return a report when it differs, and each model whose health changed."""
        monitor = self._services.monitor
        report = _dated(health_view(self._services, monitor.last or monitor.examine()))
        messages: list[Message] = []
        if self._report and any(report[name] != self._report[name] for name in ("overall_status", "issues")):
            messages.append(("system_health_report", report))
        self._report = report
        before, self._models = self._models, health(self._services).model_health
        for name, model in self._models.items():
            old = before.get(name)
            if old is None or old.health_status == model.health_status:
                continue
            messages.append(("health_monitoring_alert", _dated(model)))
            if model.health_status == Presence.CORRUPTED:
                messages.append(("corruption_detection", self._corruption(model)))
        return messages

    def _corruption(self, model: ModelHealth) -> dict[str, Any]:
        # A task that needs the model downloads its bad files anew, where that is allowed.
        mends_itself = model.can_auto_repair and self._services.settings.auto_download
        found = {
            "model_id": model.model_id,
            "corruption_type": next(iter(model.corruption_types), None),
            "severity": "error",
            "repair_action": next(iter(model.repair_suggestions), None),
            "requires_user_action": not mends_itself,
            "timestamp": iso(utcnow()),
        }
        return {name: value for name, value in found.items() if value is not None}

    def state(self) -> list[Message]:
        """Return the newest report."""
        return [("system_health_report", self._report)]


class UseWatch:
    """How much the models were used by all, and how the tasks went that the caller sees."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._messages: dict[str, dict[str, Any]] = {}

    def look(self) -> list[Message]:
        """Return the figures that differ from those before."""
        use = analytics(self._services)
        fresh: dict[str, dict[str, Any]] = {
            "usage_statistics_update": {
                "system_analytics": _plain(use.system_analytics),
                "model_analytics": {name: _plain(one) for name, one in use.model_analytics.items()},
                "days": use.time_period.days,
            },
            "analytics_update": {"performance_summary": _plain(day_totals(self._services))},
        }
        before, self._messages = self._messages, fresh
        return [message for message in self.state() if before and before[message[0]] != fresh[message[0]]]

    def state(self) -> list[Message]:
        """Return all figures."""
        return [(kind, data | {"timestamp": iso(utcnow())}) for kind, data in self._messages.items()]


class PlacesWatch:
    """The places of the downloads that wait for another one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._places: dict[str, dict[str, Any]] = {}

    def look(self) -> list[Message]:
        """Return the downloads whose place has changed, or that wait newly."""
        services = self._services
        all_of_them = services.control.all().values()
        ends = [one.progress.eta_seconds for one in all_of_them if one.state in RUNNING and one.progress is not None]
        first = next((seconds for seconds in ends if seconds is not None), None)
        before, self._places = self._places, {}
        for place, one in enumerate(services.downloads.waiting(), 1):
            data = {"model_id": one.spec.id, "queue_position": place}
            self._places[one.spec.id] = known(data | {"estimated_wait_time": first if place == 1 else None})
        return [
            message
            for message in self.state()
            if before.get(message[1]["model_id"], {}).get("queue_position") != message[1]["queue_position"]
        ]

    def state(self) -> list[Message]:
        """Return all places."""
        return [("model_queue_update", place | {"timestamp": iso(utcnow())}) for place in self._places.values()]


def card_messages(cards: Iterable[Gpu], task_id: str | None = None) -> list[Message]:
    """Return the memory of each card while a task runs, `task_id` where only one does: what all programs have taken."""
    messages: list[Message] = []
    for card in cards:
        if not card.memory_total or card.memory_used is None:
            continue
        share = 100 * card.memory_used / card.memory_total
        data = {
            "device_id": card.index,
            "device_name": card.name,
            "allocated_mb": round(card.memory_used / MIB, 1),
            "free_mb": round((card.memory_total - card.memory_used) / MIB, 1),
            "total_mb": round(card.memory_total / MIB, 1),
            "allocated_percent": round(share, 1),
            "warning_level": "critical" if share > _CRITICAL else "warning" if share > _WARNING else "normal",
            "monitoring_type": "generation_vram",
            "task_id": task_id,
            "timestamp": iso(utcnow()),
        }
        messages.append(("vram_monitoring", known(data)))
    return messages


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


def _dated(value: BaseModel) -> dict[str, Any]:
    return _plain(value) | {"timestamp": iso(utcnow())}
