"""What has to hold when a campaign is over. Each promise that was broken becomes a sentence.

Looks at what users and operators can see: the API, the folders of the home, the database, the processes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from backend.services.media.video_encoder import read_frames
from benchmarks.chaos.steps import StepCount, count_steps
from benchmarks.home_server import HomeServer

#: Most repeated steps, as a share of all steps.
REPEATED: Final = 0.05
_ENDS: Final = {"completed", "failed", "cancelled"}


class Findings:
    """What was found in one home, and which promises it breaks."""

    def __init__(self, server: HomeServer) -> None:
        self._server = server
        self.broken: list[str] = []
        self.steps = StepCount()
        self.lost_attempts = 0

    def ask_about(self, ids: Sequence[str]) -> None:
        """Ask the running server about its tasks: each is to be completed, once, with one video."""
        for task_id in ids:
            events = self._all_events(task_id)
            kinds = Counter(event["type"] for event in events)
            ends = [event["type"] for event in events if event["type"] in _ENDS]
            self._expect(ends == ["completed"], f"task {task_id} ended as {ends or 'nothing'}")
            numbers = [event["number"] for event in events]
            self._expect(numbers == list(range(1, len(events) + 1)), f"the events of {task_id} are not 1, 2, 3 ...")
            self._expect(kinds["submitted"] == 1, f"task {task_id} was submitted {kinds['submitted']} times")
            self.steps += count_steps(events)
            self.lost_attempts += kinds["attempt_lost"]
        self._expect(
            self.steps.share <= REPEATED,
            f"{self.steps.repeated} of {self.steps.needed} steps were repeated, more than {REPEATED:.0%}",
        )

    def compare_ids(self, ids: Sequence[str], again: Sequence[str]) -> None:
        """Expect that submits with the same keys led to the same tasks."""
        self._expect(list(ids) == list(again), "a repeated submit with the same key led to another task")
        self._expect(len(set(ids)) == len(ids), "two submits led to the same task")

    def compare_clips(self, ids: Sequence[str], undisturbed: Sequence[str], modes: Sequence[str]) -> None:
        """Expect the frames of each clip to be those of the same request in the undisturbed run."""
        outputs = self._server.home / "outputs"
        for one, other, mode in zip(ids, undisturbed, modes, strict=True):
            same = frames_of(outputs / f"{one}.mp4") == frames_of(outputs / f"{other}.mp4")
            self._expect(same, f"the frames of {one} ({mode}) differ from those of the undisturbed run ({other})")

    def search(self, ids: Iterable[str]) -> None:
        """Search the home of the stopped server: `ids` are all tasks that were ever submitted to it."""
        home = self._server.home
        wanted = {f"{task_id}{ending}" for task_id in ids for ending in (".mp4", "_thumb.jpg")}
        found = {path.name for path in (home / "outputs").iterdir()}
        for name in sorted(found ^ wanted):
            self._expect(False, f"{name} in outputs is {'missing' if name in wanted else 'nobody’s'}")
        stray = [path for path in home.rglob("*") if ".part" in path.name]
        stray += [*(home / "work").iterdir(), *self._server.temporary.iterdir()]
        for path in stray:
            self._expect(False, f"{path.relative_to(home.parent)} was left")
        self._search_database(home / "wan22.db", len(wanted) // 2)
        for process in self._server.processes():
            self._expect(False, f"process {process.pid} was left: {' '.join(process.cmdline())}")

    def _search_database(self, path: Path, tasks: int) -> None:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:

            def one(query: str) -> Any:
                return database.execute(query).fetchone()[0]

            self._expect(one("PRAGMA integrity_check") == "ok", "the database is damaged")
            for what, query, count in (
                ("tasks", "SELECT count(*) FROM tasks", tasks),
                ("videos", "SELECT count(*) FROM outputs", tasks),
                ("leases", "SELECT count(*) FROM tasks WHERE lease_token IS NOT NULL", 0),
                ("registered workers", "SELECT count(*) FROM workers", 0),
            ):
                self._expect((number := one(query)) == count, f"there are {number} {what} instead of {count}")

    def _all_events(self, task_id: str) -> list[dict[str, Any]]:
        answer = self._server.ask(f"/api/v1/queue/{task_id}/events")
        return [] if answer is None else list(answer["events"])

    def _expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.broken.append(sentence)


def frames_of(path: Path) -> str | None:
    """Return the SHA-256 of the decoded frames of a file; None without the file."""
    if not path.is_file():
        return None
    content = hashlib.sha256()
    for frame in read_frames(path):
        content.update(frame.tobytes())
    return content.hexdigest()
