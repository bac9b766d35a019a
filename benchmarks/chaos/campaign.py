"""One campaign: an undisturbed run of the requests, the same requests under kills, and a look at what is left.

Both runs use one home and one server, so that the tasks of the first one witness the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.chaos.kills import Kill, Killer, draw_kills
from benchmarks.chaos.promises import Findings
from benchmarks.chaos.requests import draw_requests
from benchmarks.chaos.steps import StepCount
from benchmarks.chaos.submitter import Submitter
from benchmarks.home_server import HomeServer, Late, wait_for

#: What a campaign sets, and why.
SETTINGS: Final = {
    # These clips take two seconds, not twenty minutes. It also puts every finished step into the event log.
    "WAN22_STATE_SECONDS": "0",
    # Five deaths in five minutes mean a broken installation; here they mean that the campaign works.
    "WAN22_RESTART_LIMIT": "1000",
    "WAN22_RESTART_BACKOFF_SECONDS": "0",
    # Three attempts in a row that die before they have saved anything new mean a deadly task; here, bad luck.
    "WAN22_MAX_ATTEMPTS": "30",
    # What a killed upload leaves goes after a day; here within the campaign.
    "WAN22_JANITOR_SECONDS": "5",
    "WAN22_KEEP_PARTS_HOURS": "0.003",
}
#: Longest time in which no task may end without the campaign being given up, in seconds.
_PATIENCE: Final = 300.0
#: Interval between two looks at the queue while it drains, in seconds.
_LOOK_SECONDS: Final = 0.5
#: How long the janitor and the worker get to tidy up after the last task, in seconds.
_TIDY_SECONDS: Final = 30.0
#: How long orphans get to end after their server, in seconds.
_ORPHAN_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large a campaign is."""

    kills: int
    tasks: int
    seed: int
    minutes: float  #: after which no more kills are sent


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign at one moment."""

    title: str
    kills: int
    completed: int


@dataclass(slots=True)
class Result:
    """What a campaign did and found."""

    size: Size
    modes: list[str]
    kills: list[Kill] = field(default_factory=list)
    steps: StepCount = field(default_factory=StepCount)
    lost_attempts: int = 0
    unanswered_calls: int = 0
    undisturbed_seconds: float = 0.0
    disturbed_seconds: float = 0.0
    broken: list[str] = field(default_factory=list)  #: promises that were not kept, as sentences


class Campaign:
    """One home under attack."""

    def __init__(self, size: Size, folder: Path, show: Callable[[Progress], None]) -> None:
        """Prepare; everything is kept in `folder`, and `show` receives the progress."""
        self._size = size
        self._show = show
        self._requests = draw_requests(size.tasks, size.seed)
        self._server = HomeServer(folder, SETTINGS)
        self._result = Result(size, [request.mode for request in self._requests])
        self._completed = 0
        self._looked_at = 0.0
        self._task_seconds = 0.0

    def run(self) -> Result:
        """Run it to its end; what it started is ended in any case."""
        result = self._result
        try:
            self._run()
        except Late as late:
            result.broken.append(f"{late}; the log ends with:\n{self._server.log_end()}")
        finally:
            self._server.close()
        return result

    def _run(self) -> None:
        result, tasks = self._result, self._size.tasks
        began = time.monotonic()
        self._server.start()
        self._server.wait_ready()
        start_seconds = time.monotonic() - began

        undisturbed = Submitter(self._server.url, self._requests, "undisturbed")
        began = time.monotonic()
        undisturbed.start()
        self._drain(undisturbed, tasks, "undisturbed run")
        result.undisturbed_seconds = time.monotonic() - began
        self._task_seconds = result.undisturbed_seconds / tasks

        disturbed = Submitter(self._server.url, self._requests, "disturbed")
        began = time.monotonic()
        disturbed.start()
        self._kill(disturbed, start_seconds)
        self._drain(disturbed, 2 * tasks, "draining the queue")
        result.disturbed_seconds = time.monotonic() - began
        result.unanswered_calls = disturbed.unanswered
        self._judge(undisturbed, disturbed)

    def _kill(self, submitter: Submitter, start_seconds: float) -> None:
        def is_over() -> bool:
            return submitter.is_done and self._left() == 0

        plan = draw_kills(self._size.kills, self._size.seed)
        killer = Killer(
            self._server,
            start_seconds=start_seconds,
            work_left=lambda: self._left() * self._task_seconds,
            is_over=is_over,
        )
        self._result.kills = killer.done
        deadline = time.monotonic() + self._size.minutes * 60
        for number, planned in enumerate(plan):
            if time.monotonic() > deadline or not killer.carry_out(planned, len(plan) - number):
                break
            self._show(Progress("killing", len(killer.done), self._completed - self._size.tasks))

    def _left(self) -> int:
        """Tasks of the disturbed run that are not completed; counted by the server at most twice a second."""
        if time.monotonic() - self._looked_at > 0.5 and (counts := self._server.ask("/api/v1/queue", limit=1)):
            self._looked_at = time.monotonic()
            self._completed = counts["total_tasks"] - self._unfinished(counts)
        return 2 * self._size.tasks - self._completed

    @staticmethod
    def _unfinished(counts: dict[str, int]) -> int:
        return counts["pending_tasks"] + counts["processing_tasks"] + counts["paused_tasks"]

    def _drain(self, submitter: Submitter, total: int, title: str) -> None:
        """Wait until every request is submitted and every task has ended; `total` counts those of both runs.

        Raises:
            Late: nothing ended for a long time, a request was refused, or the server ended by itself.
        """
        completed, quiet_since = -1, time.monotonic()
        while not (self._is_idle(total) and submitter.is_done):
            if submitter.fault is not None:
                raise Late(submitter.fault)
            if not self._server.is_running:
                raise Late("the server ended, although nobody killed it")
            if self._completed != completed:
                completed, quiet_since = self._completed, time.monotonic()
                self._show(Progress(title, len(self._result.kills), completed - (total - self._size.tasks)))
            elif time.monotonic() - quiet_since > _PATIENCE:
                raise Late(f"no task ended within {_PATIENCE:g} s")
            time.sleep(_LOOK_SECONDS)

    def _is_idle(self, total: int) -> bool:
        counts = self._server.ask("/api/v1/queue", limit=1)
        if counts is None:
            return False
        self._completed = counts["total_tasks"] - self._unfinished(counts)
        return bool(self._completed >= total)

    def _judge(self, undisturbed: Submitter, disturbed: Submitter) -> None:
        findings = Findings(self._server)
        findings.ask_about(disturbed.ids)
        findings.compare_ids(disturbed.ids, disturbed.submit_again())
        findings.compare_clips(disturbed.ids, undisturbed.ids, self._result.modes)
        self._result.steps, self._result.lost_attempts = findings.steps, findings.lost_attempts
        parts = [self._server.home, self._server.temporary]

        def is_tidy() -> bool:
            return not any(".part" in path.name for folder in parts for path in folder.rglob("*"))

        with suppress(Late):  # the search names what is left
            wait_for(is_tidy, _TIDY_SECONDS, "tidy home")
        if (status := self._server.stop()) != 0:
            findings.broken.append(f"the server stopped with status {status}")
        with suppress(Late):
            wait_for(lambda: not self._server.processes(), _ORPHAN_SECONDS, "end of the last process")
        findings.search([*undisturbed.ids, *disturbed.ids])
        self._result.broken += findings.broken
