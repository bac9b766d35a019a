"""Messages about what is in no log: models, health, downloads that wait, the use of the models, the cards.

Compares what is there now with what was last told. Reads, and changes nothing; knows no client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from backend.api.http.shapes import known
from backend.api.live.messages import ANALYTICS_TOPIC, FALLBACK_TOPIC, HEALTH_TOPIC, MODELS_TOPIC, Notice
from backend.api.models.cleanup import cleanup_action
from backend.api.models.downloads import download_view
from backend.api.models.status import model_context, model_details, model_health
from backend.core.domain import iso, utcnow
from backend.core.planning.hardware import Gpu
from backend.core.planning.memory_level import Place, ResourceLimits
from backend.models.folder.manager import ModelState, Presence
from backend.models.folder.manifest import read_manifest
from backend.services.downloads.state import RUNNING
from backend.services.system.container import Services
from backend.services.system.host_stats import MIB

#: Period of the statistics, in days; models used within it are not suggested for deletion.
DAYS: Final = 30
#: Interval between two looks at what could be deleted, which reads all folders of models, in seconds.
CLEANUP_SECONDS: Final = 600.0
_LIMITS: Final = ResourceLimits()

#: What one look has found: plain JSON values by name.
Look = dict[str, dict[str, Any]]


class StateSource(Protocol):
    """One kind of state."""

    def look(self) -> Look:
        """Return what is there now."""

    def changes(self, before: Look, now: Look) -> list[Notice]:
        """Return the messages about the differences."""

    def snapshot(self, now: Look) -> list[Notice]:
        """Return what a new subscriber is told."""


class StateFeed:
    """What was last told of each topic. Callers take turns."""

    def __init__(self, services: Callable[[], Services]) -> None:
        """`services` returns the parts to look at; it is called from the first look on."""
        sources: dict[str, StateSource] = {
            MODELS_TOPIC: _Models(services),
            HEALTH_TOPIC: _Health(services),
            FALLBACK_TOPIC: _WaitingDownloads(services),
            ANALYTICS_TOPIC: _Use(services),
        }
        self._sources = sources
        self._told: dict[str, Look] = {}
        self.topics: Final = frozenset(sources)

    def changes(self, topics: Iterable[str]) -> list[Notice]:
        """Look, and return what has changed since the last look at these topics; nothing at the first one.

        Raises:
            StoreFailed: the database cannot be read now.
        """
        notices: list[Notice] = []
        for topic in topics:
            now, source = self._sources[topic].look(), self._sources[topic]
            before, self._told[topic] = self._told.get(topic), now
            notices += [] if before is None else source.changes(before, now)
        return [_stamped(notice) for notice in notices]

    def snapshot(self, topic: str) -> list[Notice]:
        """Return what a new subscriber is told, as of the last look."""
        return [_stamped(notice) for notice in self._sources[topic].snapshot(self._told.get(topic, {}))]


class _Models:
    """The files, the use and the place in memory of each model."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    def look(self) -> Look:
        services = self._services()
        context, downloads = model_context(services), services.control.all()
        found: Look = {}
        for state in services.models.states():
            name, details = state.spec.id, model_details(state, context).model_dump(exclude_none=True)
            running = name in downloads and downloads[name].state in RUNNING
            progress = download_view(downloads[name]).progress if running else None
            found[name] = known(details | {"download_progress": progress})
        return found

    def changes(self, before: Look, now: Look) -> list[Notice]:
        notices = []
        for name, model in now.items():
            old = before.get(name)
            if old == model:
                continue
            notices.append(Notice("model_status_update", MODELS_TOPIC, model))
            was = Presence.MISSING.value if old is None else old["availability_status"]
            if was != model["availability_status"]:
                change = {"old_availability": was, "new_availability": model["availability_status"]}
                data = {"model_id": name} | change | {"reason": model.get("error_message")}
                notices.append(Notice("model_availability_change", MODELS_TOPIC, known(data)))
        for name in before.keys() - now.keys():
            data = {"model_id": name, "old_availability": before[name]["availability_status"]}
            gone = {"new_availability": Presence.MISSING.value, "reason": "It is no longer in the table of models"}
            notices.append(Notice("model_availability_change", MODELS_TOPIC, data | gone))
        return notices

    def snapshot(self, now: Look) -> list[Notice]:
        stamp = {"timestamp": iso(utcnow())}
        models = [model | stamp for model in now.values()]
        return [Notice("batch_model_status_update", MODELS_TOPIC, {"models": models, "count": len(models)})]


_REPORT: Final = "report"


class _Health:
    """What the health monitor finds, and the condition of the models' files."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    def look(self) -> Look:
        services = self._services()
        found = services.monitor.last or services.monitor.examine()
        findings = [
            known(
                {
                    "name": one.name,
                    "message": one.sentence,
                    "failure_type": one.failure,
                    "critical": one.critical,
                    "recommendation": one.next_step,
                }
            )
            for one in found.findings
        ]
        look: Look = {_REPORT: {"status": found.overall, "findings": findings}}
        for state in services.models.states():
            look[f"model {state.spec.id}"] = _condition(state, downloads=services.settings.auto_download)
        return look

    def changes(self, before: Look, now: Look) -> list[Notice]:
        notices = []
        if _signs(before[_REPORT]) != _signs(now[_REPORT]):
            notices.append(Notice("system_health_report", HEALTH_TOPIC, now[_REPORT]))
        for key in now.keys() - {_REPORT}:
            notices += _condition_notices(before.get(key), now[key])
        return notices

    def snapshot(self, now: Look) -> list[Notice]:
        return [Notice("system_health_report", HEALTH_TOPIC, now[_REPORT] | {"snapshot": True})] if now else []


def _signs(report: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes a report news; the sentences have figures in them that change all the time."""
    return report["status"], *(one["name"] for one in report["findings"])


def _condition(state: ModelState, *, downloads: bool) -> dict[str, Any]:
    health = model_health(state, ())
    managed = read_manifest(state.folder) is not None and state.spec.repo_id is not None
    return {
        "model_id": state.spec.id,
        "health_status": health.health_status,
        "issues": health.issues,
        "repair_action": f"POST /api/v1/models/download with model_type {state.spec.id}" if managed else None,
        "requires_user_action": not (managed and downloads),
    }


def _condition_notices(before: dict[str, Any] | None, now: dict[str, Any]) -> list[Notice]:
    """Return the messages about a model; one that comes and goes with a download is no news for its health."""
    status, was = now["health_status"], "healthy" if before is None else before["health_status"]
    unwell = (Presence.CORRUPTED, Presence.UNSUPPORTED)
    if status == was or not (status in unwell or was in unwell):
        return []
    names = ("model_id", "health_status", "issues")
    notices = [Notice("health_monitoring_alert", HEALTH_TOPIC, {name: now[name] for name in names})]
    if status == Presence.CORRUPTED:
        data = {name: now[name] for name in ("model_id", "repair_action", "requires_user_action")}
        data |= {"corruption_type": "damaged_files", "severity": "critical", "message": "; ".join(now["issues"])}
        notices.append(Notice("corruption_detection", HEALTH_TOPIC, known(data)))
    return notices


class _WaitingDownloads:
    """The places of the downloads that wait for another one."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    def look(self) -> Look:
        all_of_them = self._services().control.all().values()
        waiting = self._services().downloads.waiting()
        ends = [one.progress.eta_seconds for one in all_of_them if one.state in RUNNING and one.progress is not None]
        first = next((seconds for seconds in ends if seconds is not None), None)
        return {
            one.spec.id: known(
                {"model_id": one.spec.id, "queue_position": place, "estimated_wait_time": first if place == 1 else None}
            )
            for place, one in enumerate(waiting, 1)
        }

    def changes(self, before: Look, now: Look) -> list[Notice]:
        return [
            Notice("model_queue_update", FALLBACK_TOPIC, place)
            for name, place in now.items()
            if before.get(name, {}).get("queue_position") != place["queue_position"]
        ]

    def snapshot(self, now: Look) -> list[Notice]:
        return [Notice("model_queue_update", FALLBACK_TOPIC, place) for place in now.values()]


_USAGE, _CLEANUP = "usage", "cleanup"


class _Use:
    """How much the models are used, and what could be deleted."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services
        self._cleanup: dict[str, Any] = {}
        self._looked_at = float("-inf")

    def look(self) -> Look:
        services = self._services()
        models = {
            one.model: known(
                {
                    "completed": one.completed,
                    "failed": one.failed,
                    "cancelled": one.cancelled,
                    "average_generation_time": None if one.mean_seconds is None else round(one.mean_seconds, 2),
                }
            )
            for one in services.usage.of_last(DAYS).records
        }
        total = sum(one["completed"] + one["failed"] + one["cancelled"] for one in models.values())
        if time.monotonic() - self._looked_at >= CLEANUP_SECONDS:
            self._looked_at = time.monotonic()
            report = services.cleanup.report()
            found = services.cleanup.suggestions(report, keep_days=DAYS, target_free=None)
            shown = [cleanup_action(one, one.frees).model_dump() for one in found]
            total_gb = round(sum(one["space_gb"] for one in shown), 3)
            self._cleanup = {"recommendations": shown, "total_space_gb": total_gb}
        return {_USAGE: {"days": DAYS, "total_uses": total, "models": models}, _CLEANUP: self._cleanup}

    def changes(self, before: Look, now: Look) -> list[Notice]:
        return [
            Notice(kind, ANALYTICS_TOPIC, now[name])
            for name, kind in ((_USAGE, "usage_statistics_update"), (_CLEANUP, "cleanup_recommendation"))
            if before[name] != now[name]
        ]

    def snapshot(self, now: Look) -> list[Notice]:
        return [
            Notice(kind, ANALYTICS_TOPIC, now[name] | {"snapshot": True})
            for name, kind in ((_USAGE, "usage_statistics_update"), (_CLEANUP, "cleanup_recommendation"))
            if now.get(name)
        ]


def card_messages(cards: Sequence[Gpu], task_id: str | None) -> list[dict[str, Any]]:
    """Return the data of `vram_monitoring` for each card whose memory is known; `task_id` is what uses it."""
    messages = []
    for card in cards:
        if not card.memory_total or card.memory_used is None:
            continue
        share = card.memory_used / card.memory_total
        level = _LIMITS.of(Place.VRAM).level(share, None)
        only = {"task_id": task_id, "monitoring_type": "generation_vram"} if task_id is not None else {}
        messages.append(
            {
                "allocated_mb": round(card.memory_used / MIB, 1),
                "free_mb": round((card.memory_total - card.memory_used) / MIB, 1),
                "total_mb": round(card.memory_total / MIB, 1),
                "allocated_percent": round(100 * share, 1),
                "warning_level": "normal" if level is None else level.value,
                "device_name": card.name,
                "device_id": card.index,
            }
            | only
            | {"timestamp": iso(utcnow())}
        )
    return messages


def _stamped(notice: Notice) -> Notice:
    return Notice(notice.type, notice.topic, notice.data | {"timestamp": iso(utcnow())})
