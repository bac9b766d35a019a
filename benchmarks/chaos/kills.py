"""When and whom to kill: a plan drawn from a seed, and the hand that carries it out.

A quarter of the kills are aimed at phases that are too short to be hit by chance, as many at processes that are
starting; the others come at any moment. The plan depends on the seed alone; how far a task is at some moment depends on
the machine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

from benchmarks.home_server import POLL_SECONDS, HomeServer, Late, wait_for

WORKER, SERVER, BOTH = "worker", "server", "both"
#: Whom to kill, with weights.
TARGETS: Final = {WORKER: 6, SERVER: 3, BOTH: 1}
STARTING, WAITING, ANY_MOMENT = "starting", "waiting for a task", "any moment"
#: Stages of a task, as the API names them, in their order.
STAGES: Final = ("initializing", "loading_model", "preparing_inputs", "generating", "post_processing", "saving")
#: Where a kill can meet the processes.
PHASES: Final = (STARTING, WAITING, *STAGES)
#: What to wait for before the kill, with weights.
AIMS: Final = {ANY_MOMENT: 50, STARTING: 25, **dict.fromkeys(STAGES[1:], 5)}
#: Longest share of the expected work that passes before the kills are used up: kills at any moment, which come after
#: half of the longest wait on average, spend most of it.
_SPREAD: Final = 0.6 * 2 * sum(AIMS.values()) / AIMS[ANY_MOMENT]
#: Interval between two looks at a worker that starts, in seconds: each costs it some of the processor.
_IDLE_SECONDS: Final = 0.15
#: Interval between two looks for another worker, in seconds: each reads the list of all processes.
_SEARCH_SECONDS: Final = 0.1
#: Longest wait for a stage, in seconds, measured from the first task in work after the latest kill.
_PATIENCE: Final = 6.0
#: Longest wait for anything to kill, in seconds: much longer than a start takes on a loaded machine.
_STUCK_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class PlannedKill:
    """One kill."""

    target: str
    aim: str
    share: float  #: 0..1, how far into the time that the aim allows


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that happened."""

    target: str
    phase: str  #: what the API last said before it
    seconds: float  #: since the campaign began


def draw_kills(count: int, seed: int) -> list[PlannedKill]:
    """Return this many kills; equal seeds give equal plans."""
    chance = random.Random(f"kills {seed}")  # noqa: S311 - reproducible, not secret
    targets = chance.choices([*TARGETS], [*TARGETS.values()], k=count)
    aims = chance.choices([*AIMS], [*AIMS.values()], k=count)
    return [PlannedKill(target, aim, chance.random()) for target, aim in zip(targets, aims, strict=True)]


class Killer:
    """Carries a plan out on one server, and starts it again after its death."""

    def __init__(
        self, server: HomeServer, *, start_seconds: float, work_left: Callable[[], float], is_over: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            server: the victim; it is running.
            start_seconds: how long the server and its worker take to start.
            work_left: seconds that the unfinished tasks would take undisturbed.
            is_over: whether nothing is left to disturb.
        """
        self._server = server
        self._start_seconds = start_seconds
        self._work_left = work_left
        self._is_over = is_over
        self._began = time.monotonic()
        self._worker: int | None = None  #: process id of the newest worker
        self._searched_at = 0.0
        self._worker_since = self._began
        self._phase = STARTING
        self._attempt: tuple[str, str | None] | None = None  #: the newest one seen, by its task and its start
        self._void: tuple[str, str | None] | None = None  #: the one that the latest kill ended
        self.done: list[Kill] = []

    def carry_out(self, planned: PlannedKill, left: int) -> bool:
        """Wait for the moment and kill; `left` kills remain, this one included. Return False when all is over.

        Raises:
            Late: there was nobody to kill, or no work, for a long time.
        """
        if not self._wait(planned, left):
            return False
        wait_for(lambda: bool(self._victims(planned.target)), _STUCK_SECONDS, f"{planned.target} to kill")
        self.done.append(Kill(planned.target, self._phase, time.monotonic() - self._began))
        for victim in self._victims(planned.target):
            with suppress(psutil.Error):
                victim.kill()
        self._worker, self._phase, self._void = None, STARTING, self._attempt
        if planned.target != WORKER:
            self._server.kill()
            self._server.start()
        return True

    def _victims(self, target: str) -> list[psutil.Process]:
        """Return the processes to kill; none while one of them is missing."""
        pid, worker = self._server.pid, self._server.worker
        if pid is None or (worker is None and target != SERVER):
            return []
        server = [] if target == WORKER else [psutil.Process(pid)]
        return server if worker is None or target == SERVER else [*server, worker]

    def _wait(self, planned: PlannedKill, left: int) -> bool:
        """Wait for the moment of a kill; return False when everything ends before it."""
        aimed_since = time.monotonic()
        at_work_since: float | None = None
        while True:
            now = time.monotonic()
            self._look()
            if self._is_over():
                return False
            if now - aimed_since > _STUCK_SECONDS or not self._server.is_running:
                raise Late(f"there was nothing to kill, aiming at {planned.aim}")
            there = self._server.is_running if planned.target == SERVER else self._worker is not None
            if planned.aim == STARTING:
                since = self._server.started_at if planned.target == SERVER else self._worker_since
                if there and now - max(since, aimed_since) >= planned.share * self._start_seconds:
                    return True
            else:
                if at_work_since is None and self._phase not in (STARTING, WAITING):
                    at_work_since = now
                if self._is_due(planned, left, at_work_since, now):
                    return True
            time.sleep(_IDLE_SECONDS if self._phase == STARTING else POLL_SECONDS)

    def _is_due(self, planned: PlannedKill, left: int, at_work_since: float | None, now: float) -> bool:
        if at_work_since is None or self._worker is None:
            return False
        if planned.aim == ANY_MOMENT:
            return now - at_work_since >= planned.share * _SPREAD * self._work_left() / left
        return self._phase == planned.aim or now - at_work_since > _PATIENCE

    def _look(self) -> None:
        """See which worker there is and what it does."""
        if time.monotonic() - self._searched_at > _SEARCH_SECONDS:
            worker = self._server.worker
            pid = None if worker is None else worker.pid
            if pid is not None and pid != self._worker:
                self._worker_since, self._phase = time.monotonic(), STARTING
            self._worker, self._searched_at = pid, time.monotonic()
        answer = self._server.ask("/api/v1/queue", status_filter="processing", limit=1)
        if answer is None:
            return  # what was seen before stays
        task = next(iter(answer["tasks"]), None)
        attempt = None if task is None else (task["id"], task.get("started_at"))
        if task is not None and attempt != self._void:
            self._phase = task.get("stage") or STAGES[0]
            self._attempt = attempt
        elif task is None and self._phase != STARTING:
            self._phase = WAITING
