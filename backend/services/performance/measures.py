"""The metrics of this server in the text format of Prometheus; docs/operations.md lists them.

Counters and histograms are counted from the event log since this process started; gauges are read for each answer.
No label names a task, a prompt or a key. A figure that nothing measures has no metric.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from backend import __version__
from backend.core.access.caller import OPERATOR, acting_as
from backend.core.domain import EventType, Task, TaskStatus
from backend.core.record import RunRecord, RunResult
from backend.services.performance.summary import mode_of
from backend.store.clients.deliveries import DeliveryState
from backend.store.performance.counted_events import RELEASING, CountedEvent, CountedEvents
from backend.store.performance.samples import Load

#: Upper limits of the histograms, in seconds: from a tiny clip on a processor to hours.
_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
_PAGE: Final = 500
_MIB, _GIB = 1024**2, 1024**3
#: The events that end a task, and the words for it.
_ENDED: Final = {
    EventType.COMPLETED: "completed",
    EventType.FAILED: "failed",
    EventType.CANCELLED: "cancelled",
}

# The time at which a series began says nothing here: all of them begin with the process.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is read for each answer."""

    tasks: Callable[[], Mapping[TaskStatus, int]]
    workers: Callable[[], Iterable[str]]  #: the state of each living worker
    load: Callable[[], Load]
    disk_free_gb: Callable[[], float]
    connections: Callable[[], int]
    messages: Callable[[], Mapping[DeliveryState, int]]


class Measures:
    """Counts, and writes what it counted; thread-safe."""

    def __init__(self, events: CountedEvents, gauges: Gauges) -> None:
        self._events = events
        self._read = gauges
        self._lock = threading.Lock()
        self._last: int | None = None
        self._since: dict[str, datetime] = {}  # when the attempt of a task began
        self._registry = registry = CollectorRegistry(auto_describe=False)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"wan22_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"wan22_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"wan22_{name}_seconds", text, labels, registry=registry, buckets=_BUCKETS)

        gauge("build_info", "The version that runs; always 1", "version").labels(__version__).set(1)
        self._tasks = gauge("tasks", "Tasks in the queue view", "state")
        self._workers = gauge("workers", "Living workers", "state")
        self._memory = gauge("memory_bytes", "Memory of this machine and of its cards together", "kind")
        self._disk = gauge("disk_free_bytes", "Free space on the disk of the home folder")
        self._sockets = gauge("websocket_connections", "Open WebSocket connections")
        self._messages = gauge("webhook_messages", "Messages to webhooks that are kept", "state")
        self._wait = seconds("queue_wait", "From the submit of a task to the start of its first attempt")
        self._task = seconds("task", "The last attempt of a task that ended", "model", "mode", "outcome")
        self._phase = seconds("phase", "Each phase of a finished video", "model", "phase")
        self._steps = counter("steps", "Denoising steps of finished videos", "model", "expert")
        self._rungs = counter("oom_rungs", "Times that memory ran out, by the plan that was tried next", "rung")
        self._lost = counter("leases_lost", "Attempts that were lost with their worker")
        self._held = counter("device_seconds", "Seconds for which workers held tasks", "model")
        self._reports = counter("client_reports", "Reports that clients sent to /api/v1/analytics", "kind")

    def start(self) -> None:
        """Count what happens from now on.

        Raises:
            StoreFailed: the database is not usable now.
        """
        with self._lock:
            self._last = self._events.newest()

    def report(self, kind: str, count: int) -> None:
        """Count reports of clients."""
        self._reports.labels(kind).inc(count)

    def scrape(self) -> bytes:
        """Count what happened since the last look, and return all metrics.

        Raises:
            StoreFailed: the database is not usable now; nothing is lost, the next look counts it.
        """
        # Sums of the whole server, whoever asks.
        with self._lock, acting_as(OPERATOR):
            self._catch_up()
            self._read_gauges()
            return generate_latest(self._registry)

    def _read_gauges(self) -> None:
        counts, workers, load = self._read.tasks(), Tally(self._read.workers()), self._read.load()
        for status in TaskStatus:
            self._tasks.labels(status).set(counts.get(status, 0))
        self._workers.clear()
        for state, count in workers.items():
            self._workers.labels(state).set(count)
        memory = {
            "ram_used": load.ram_used_gb * _GIB,
            "ram_total": load.ram_total_gb * _GIB,
            "vram_used": None if load.vram_used_mb is None else load.vram_used_mb * _MIB,
            "vram_total": None if load.vram_total_mb is None else load.vram_total_mb * _MIB,
        }
        for kind, size in memory.items():
            if size is not None:
                self._memory.labels(kind).set(size)
        self._disk.set(self._read.disk_free_gb() * _GIB)
        self._sockets.set(self._read.connections())
        for state, count in self._read.messages().items():
            self._messages.labels(state).set(count)

    def _catch_up(self) -> None:
        if self._last is None:
            self._last = self._events.newest()
        while found := self._events.after(self._last, _PAGE):
            for one in found:
                self._count(one)
                self._last = one.event.id

    def _count(self, counted: CountedEvent) -> None:
        event, task = counted.event, counted.task
        if event.type is EventType.STARTED:
            if task.id not in self._since and event.data.get("attempt") == 1:
                self._wait.observe(max(0.0, (event.created_at - task.created_at).total_seconds()))
            self._since[task.id] = event.created_at
            return
        if event.type is EventType.ATTEMPT_LOST:
            self._lost.inc()
            if not event.data.get("will_retry"):
                return  # the event that ends the task is next, and takes the seconds
        began = self._since.pop(task.id, None) if event.type in RELEASING else None
        if began is None and event.type in (EventType.COMPLETED, EventType.FAILED):
            began = task.started_at  # it began before this process did
        held = None if began is None else max(0.0, (event.created_at - began).total_seconds())
        if held is not None:
            self._held.labels(task.model).inc(held)
        if event.type in _ENDED and held is not None:
            self._task.labels(task.model, mode_of(task), _ENDED[event.type]).observe(held)
        result = None if counted.output is None else RunRecord.from_json(counted.output.metadata).result
        if result is not None:
            self._count_run(task, result)

    def _count_run(self, task: Task, result: RunResult) -> None:
        for phase, seconds in (result.seconds or {}).items():
            self._phase.labels(task.model, phase).observe(seconds)
        for expert, count in (result.expert_steps or {}).items():
            self._steps.labels(task.model, expert).inc(count)
        for fallback in result.fallbacks:
            self._rungs.labels(fallback.get("to", "unknown")).inc()
