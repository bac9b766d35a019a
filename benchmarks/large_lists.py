"""How fast a server with a large history answers: submits, pages of the queue and the gallery, ids of a million videos.

`python -m benchmarks.large_lists`. Fills a database of each kind with tasks and videos as they are recorded, starts a
server on it without a worker, and asks it over HTTP from this process, one request after the other.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import httpx2
from sqlalchemy import insert

from backend.core.catalogue.table import MODELS
from backend.core.domain import EventType, Output, TaskStatus, new_task_id
from backend.core.planning.hardware import detect_hardware
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.store.engine import Database
from backend.store.gallery.recording import figures_of, key_of
from backend.store.tables import events, gallery, outputs, tasks
from benchmarks.home_server import HomeServer
from benchmarks.real_worker import table
from tests.support.postgres import postgres_server

REPORT: Final = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-lists.md"
BEGIN: Final = "<!-- table: python -m benchmarks.large_lists -->"
#: Rows of one statement while a database is filled.
BATCH: Final = 5_000
#: Requests of each kind; the first one of each is not counted.
TIMES: Final = 60
_WORDS: Final = (
    "red blue green yellow circle square triangle ring moving spinning slowly left right above below navy teal",
    "background camera pans light morning rain forest street portrait dancer wave mountain snow city night neon",
)


@dataclass(frozen=True, slots=True)
class Size:
    """What a database holds."""

    videos: int  #: completed tasks, each with a video
    waiting: int  #: pending tasks
    whole_records: bool  #: whether a video has a record of the usual length

    @property
    def words(self) -> str:
        """Describe it."""
        return f"{self.videos:,} videos, {self.waiting:,} tasks waiting"


TASKS, IDS = Size(50_000, 5_000, whole_records=True), Size(1_000_000, 0, whole_records=False)


def fill(database: Database, size: Size) -> None:
    """Write the rows of a long history."""
    chance = random.Random(22)  # noqa: S311
    spec = MODELS["tiny-t2v-a14b"]
    request, _ = resolve_request(spec, RequestDraft("a red circle", seed=7))
    now, words = time.time(), " ".join(_WORDS).split()
    for start in range(0, size.videos + size.waiting, BATCH):
        rows: list[list[dict[str, Any]]] = [[], [], [], []]
        for number in range(start + 1, min(start + BATCH, size.videos + size.waiting) + 1):
            done = number <= size.videos
            prompt = " ".join(chance.choices(words, k=14))
            _add(
                rows, replace(request, prompt=prompt, seed=number), number, now - 3e6 + number, done, size.whole_records
            )
        with database.begin() as connection:
            for target, values in zip((tasks, events, outputs, gallery), rows, strict=True):
                if values:
                    connection.execute(insert(target), values)
    with database.read() as connection:
        if database.file is None:  # as autovacuum does in the minutes after
            connection.connection.driver_connection.rollback()  # type: ignore[union-attr]
            connection.connection.driver_connection.autocommit = True  # type: ignore[union-attr]
            connection.exec_driver_sql("VACUUM ANALYZE")
    database.checkpoint()


def _add(rows: list[list[dict[str, Any]]], request: Any, number: int, at: float, done: bool, whole: bool) -> None:
    task_id, values = new_task_id(), request.to_json()
    status = TaskStatus.COMPLETED if done else TaskStatus.PENDING
    rows[0].append(
        {"id": task_id, "status": status, "model": request.model, "request": values, "adjustments": [], "priority": 0}
        | {"attempt": int(done), "max_attempts": 3, "fingerprint": request.digest, "created_at": at, "last_event": 1}
        | {"place": number, "number": number, "completed_at": at if done else None, "progress": float(done)}
    )
    rows[1].append({"task_id": task_id, "number": 1, "type": EventType.SUBMITTED, "data": {}, "created_at": at})
    if not done:
        return
    result = RunResult(frames=request.num_frames, frames_sha256="0" * 64, quality="ok", plan="resident", seconds={})
    record = RunRecord.of(task_id, request, result, device="cpu", weights_sha256="0" * 64, libraries={"torch": "2"})
    output = Output(
        task_id=task_id,
        filename=f"{task_id}.mp4",
        size_bytes=100_000 + number,
        sha256="0" * 64,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        fps=request.fps,
        generation_seconds=3.0,
        metadata=record.to_json() if whole else {},
    )
    rows[2].append(
        figures_of(output) | {"task_id": task_id, "metadata": output.metadata, "created_at": at, "model": request.model}
    )
    rows[3].append(
        {"number": number, "task_id": task_id, "key": key_of(task_id), "created_at": at, "model": request.model}
        | {"mock": False, "seconds": output.duration_seconds, "size_bytes": output.size_bytes}
        | {"prompt": request.prompt, "favourite": number % 100 == 0, "placeholder": bytes(24)}
    )


@contextmanager
def served(folder: Path, url: str | None, size: Size) -> Iterator[httpx2.Client]:
    """Fill a database and run a server on it."""
    (folder / "home").mkdir(parents=True)
    database = Database(url or folder / "home" / "wan22.db")
    database.migrate()
    began = time.monotonic()
    fill(database, size)
    database.close()
    sys.stderr.write(f"{size.words}: filled in {time.monotonic() - began:.0f} s\n")
    settings = {"WAN22_WORKER": "false"} | ({} if url is None else {"WAN22_DATABASE_URL": url})
    server = HomeServer(folder, settings)
    server.start()
    try:
        deadline = time.monotonic() + 300
        while server.ask("/live") is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not come up:\n{server.log_end()}")
            time.sleep(0.1)
        server.client.timeout = httpx2.Timeout(120.0)
        yield server.client
    finally:
        server.stop()


def measure(ask: Callable[[int], httpx2.Response], times: int = TIMES) -> list[float]:
    """Return the milliseconds of each request, the first one left out."""
    found = []
    for index in range(times + 1):
        began = time.perf_counter()
        response = ask(index)
        found.append((time.perf_counter() - began) * 1000)
        response.raise_for_status()
    return sorted(found[1:])


def _row(kind: str, what: str, found: list[float], bound: str) -> list[str]:
    cuts = quantiles(found, n=100, method="inclusive")
    return [kind, what, f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", bound]


def tasks_rows(kind: str, client: httpx2.Client) -> list[list[str]]:
    """Measure what a client does with 50,000 tasks behind it and 5,000 waiting."""
    body = {"model_type": "tiny-t2v-a14b", "prompt": "a red circle moving right on a navy background"}

    def submit(index: int) -> httpx2.Response:
        return client.post("/api/v1/generation/submit", json=body | {"seed": index})

    found = [_row(kind, "submit", measure(submit, 200), "p50 10, p99 50")]
    for what, path in (
        ("queue, 50 tasks", "/api/v1/queue?limit=50"),
        ("queue, 50 that completed", "/api/v1/queue?limit=50&status_filter=completed"),
        ("gallery, 50 videos", "/api/v1/outputs?limit=50"),
        ("gallery, 50 videos after 40,000", "/api/v1/outputs?limit=50&offset=40000"),
        ("gallery, 50 videos with two words", "/api/v1/outputs?limit=50&search=forest%20neon"),
    ):
        found.append(_row(kind, what, measure(lambda _, path=path: client.get(path)), "30"))  # type: ignore[misc]
    ids = client.get("/api/v1/outputs/ids?limit=10000").json()["ids"]

    def batch(index: int) -> httpx2.Response:
        return client.post("/api/v1/outputs/batch", json={"ids": ids[index * 50 : index * 50 + 50]})

    found.append(_row(kind, "details of 50 videos by id", measure(batch), "30"))
    return found


def ids_rows(kind: str, client: httpx2.Client) -> list[list[str]]:
    """Measure lists of ids of a million videos."""
    found = []
    for what, query, bound in (
        ("all ids", "", "300"),
        ("ids, oldest first", "&sort=oldest", "300"),
        ("ids of one model", "&model=tiny-t2v-a14b", ""),
        ("ids of favourites (10,000)", "&favourite=true", ""),
        (
            "ids of the newest 100,000 seconds",
            f"&after={datetime.fromtimestamp(time.time() - 2.1e6, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "",
        ),
        ("ids, two words", "&search=forest%20neon", ""),
        ("ids, largest first", "&sort=largest", ""),
    ):
        path = f"/api/v1/outputs/ids?format=packed{query}"
        times = measure(lambda _, path=path: client.get(path), 10)  # type: ignore[misc]
        count = client.get(path).headers["x-total-count"]
        found.append(_row(kind, f"{what}: {int(count):,}", times, bound))
    found.append(_row(kind, "gallery, 50 videos", measure(lambda _: client.get("/api/v1/outputs?limit=50"), 10), ""))
    return found


def main() -> None:
    """Measure, and write the tables into the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=IDS.videos, help="size of the large gallery")
    arguments = parser.parse_args()
    machine = detect_hardware()
    large = replace(IDS, videos=arguments.videos)
    small_rows, large_rows = [], []
    with tempfile.TemporaryDirectory(prefix="wan22-lists-") as name:
        folder = Path(name)
        for size, rows, ask in ((TASKS, small_rows, tasks_rows), (large, large_rows, ids_rows)):
            with served(folder / f"sqlite-{size.videos}", None, size) as client:
                rows += ask("SQLite", client)
            with (
                postgres_server(folder) as server,
                served(folder / f"pg-{size.videos}", server.new_database(), size) as client,
            ):
                rows += ask("PostgreSQL", client)
    head = ("database", "request", "p50 ms", "p99 ms", "bound ms")
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores.\n\n"
        f"{TASKS.words}:\n\n{table(head, small_rows)}\n\n{large.words}:\n\n{table(head, large_rows)}\n"
    )
    sys.stdout.write(text)
    before, _, _ = REPORT.read_text().partition(BEGIN)
    REPORT.write_text(f"{before}{BEGIN}\n\n{text}")


if __name__ == "__main__":
    main()
