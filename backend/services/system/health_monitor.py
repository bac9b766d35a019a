"""Looks at the system at an interval, tells what is new, and carries out the remedies of lasting findings.

One thread of the web process. What it does by itself is limited by a budget, recorded, and can be taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import structlog

from backend.core.domain import iso, utcnow
from backend.core.errors.surroundings import StoreFailed
from backend.core.repeating import Repeating
from backend.core.settings import Settings
from backend.services.system.findings import Examination, HealthFinding
from backend.services.system.memory_growth import GROWTH, MemoryGrowth
from backend.services.system.recovery import Recovery
from backend.store.workers import WorkerInfo

#: A finding whose remedy was carried out is treated again when it is still there after this time, in seconds.
AGAIN_SECONDS: Final = 600.0

log = structlog.get_logger(__name__)

#: Publishes an alert of plain JSON values.
Alert = Callable[[dict[str, Any]], None]


class Overall(StrEnum):
    """The state in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    findings: tuple[HealthFinding, ...]
    at: datetime

    @property
    def overall(self) -> Overall:
        """The worst of the findings."""
        if any(one.critical for one in self.findings):
            return Overall.CRITICAL
        return Overall.DEGRADED if self.findings else Overall.HEALTHY


class HealthMonitor:
    """The thread and its looks; started and stopped with the server."""

    def __init__(
        self,
        settings: Settings,
        examination: Examination,
        growth: MemoryGrowth,
        recovery: Recovery,
        living: Callable[[], list[WorkerInfo]],
        alert: Alert,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._acts = settings.auto_recovery
        self._seconds = settings.health_seconds
        self._examination = examination
        self._growth = growth
        self._recovery = recovery
        self._living = living
        self._alert = alert
        self._clock = clock
        self._treated: dict[str, float] = {}  # when the remedy of a finding was carried out
        self._thread = Repeating("health", self.look, settings.health_seconds or 3600.0)
        self.last: Look | None = None  #: the newest look

    @property
    def active(self) -> bool:
        """Whether it looks at an interval."""
        return self._seconds > 0

    def start(self) -> None:
        """Start looking, unless that is turned off."""
        if self.active:
            self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._thread.stop()

    def examine(self) -> Look:
        """Return what is wrong now, without telling or treating anything."""
        known = self.last.findings if self.last else ()
        growing = [one for one in known if one.name.startswith(GROWTH)]  # only the monitor's own looks measure it
        return Look((*self._examination.findings(), *growing), utcnow())

    def look(self) -> Look:
        """Look once; tell what is new, and treat what was there at the look before already."""
        findings = self._examination.findings()
        try:
            findings += self._growth.look(self._living())
        except StoreFailed as error:  # the examination has said so
            log.warning("health.workers_not_read", error=error.code)
        before = {one.name for one in self.last.findings} if self.last else set()
        self.last = Look(tuple(findings), utcnow())
        names = {one.name for one in findings}
        self._treated = {name: at for name, at in self._treated.items() if name in names}
        for finding in findings:
            if finding.name not in before:
                self._tell(finding)
            elif self._acts:
                self._treat(finding)
        for name in sorted(before - names):
            log.info("health.finding_gone", finding=name)
        return self.last

    def _tell(self, finding: HealthFinding) -> None:
        log.warning("health.finding", finding=finding.name, sentence=finding.sentence, critical=finding.critical)
        self._alert(
            {
                "alert_type": "health",
                "severity": "critical" if finding.critical else "warning",
                "message": finding.sentence,
                "failure_type": finding.failure,
                "recommendation": finding.next_step,
                "timestamp": iso(utcnow()),
            }
        )

    def _treat(self, finding: HealthFinding) -> None:
        if finding.remedy is None:
            return
        treated = self._treated.get(finding.name)
        if treated is not None and self._clock() - treated < AGAIN_SECONDS:
            return
        self._treated[finding.name] = self._clock()
        try:
            if not self._recovery.may_act(finding.remedy):
                log.warning("health.budget_used_up", finding=finding.name, action=finding.remedy.value)
                return
            done = self._recovery.perform(
                finding.remedy, finding.failure, finding.sentence, automatic=True, worker_id=finding.subject
            )
        except StoreFailed as error:
            log.warning("health.not_treated", finding=finding.name, error=error.code)
            return
        self._alert(
            {
                "alert_type": "recovery",
                "severity": "info" if done.succeeded else "warning",
                "message": done.message,
                "failure_type": finding.failure,
                "action": done.action,
                "timestamp": iso(utcnow()),
            }
        )
