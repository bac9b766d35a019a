"""How fast a server with a large history answers: submits, pages of the queue and the gallery, ids of a million videos.

`python -m benchmarks.large_lists sqlite tasks`, or `postgresql`, or `ids`. Fills a database with rows as they are
recorded, starts a server on it without a worker, and asks it over HTTP from this process, one request after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, TypeVar

import httpx2
import psutil

from backend.core.catalogue.table import MODELS
from backend.core.domain import EventType, TaskStatus, new_task_id
from backend.core.planning.hardware import detect_hardware
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.store.engine import Database
from backend.store.gallery.recording import key_of
from benchmarks.home_server import HomeServer
from benchmarks.real_worker import table
from tests.support.postgres import postgres_server

T = TypeVar("T")

REPORT: Final = Path(__file__).parents[1] / "docs" / "benchmarks" / "large-lists.md"
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
    """Write the rows of a long history, past everything that the product would do for each."""
    columns = {
        "tasks": "number, id, status, model, request, adjustments, priority, place, attempt, "
        "max_attempts, "
        "fingerprint, created_at, completed_at, progress, last_event, "
        "cancel_requested, pause_requested, advanced, strikes, repeats",
        "events": "task_id, number, type, data, created_at",
        "outputs": "task_id, filename, size_bytes, sha256, width, height, num_frames, fps, generation_seconds, "
        "warnings, metadata, created_at, model",
        "gallery": "number, task_id, key, created_at, model, mock, imported, seconds, size_bytes, "
        "favourite, "
        "placeholder, prompt",
    }
    with database.begin() as connection:
        driver: Any = connection.connection.driver_connection
        for batch in batched(_history(size), BATCH):
            for index, (name, names) in enumerate(columns.items()):
                values = [rows[index] for rows in batch if rows[index] is not None]
                if database.file is not None:
                    marks = ", ".join("?" * len(names.split(", ")))
                    driver.executemany(f"INSERT INTO {name} ({names}) VALUES ({marks})", values)  # noqa: S608
                    continue
                with driver.cursor().copy(f"COPY {name} ({names}) FROM STDIN") as copy:
                    for value in values:
                        copy.write_row(value)
        if database.file is None:
            connection.exec_driver_sql("SELECT setval('tasks_number_seq', (SELECT max(number) FROM tasks))")
    with database.read() as connection:
        if database.file is None:  # as autovacuum does in the minutes after
            driver = connection.connection.driver_connection
            driver.rollback()
            driver.autocommit = True
            connection.exec_driver_sql("VACUUM ANALYZE")
    database.checkpoint()


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the rows in lists of at most so many."""
    found = iter(rows)
    while batch := list(islice(found, size)):
        yield batch


def _history(size: Size) -> Iterator[tuple[tuple[Any, ...] | None, ...]]:
    """Yield for each task its rows of the four tables."""
    chance = random.Random(22)  # noqa: S311
    request, _ = resolve_request(MODELS["tiny-t2v-a14b"], RequestDraft("a red circle", seed=7))
    result = RunResult(frames=request.num_frames, frames_sha256="0" * 64, quality="ok", plan="resident", seconds={})
    made = RunRecord.of("", request, result, device="cpu", weights_sha256="0" * 64, libraries={"torch": "2"})
    record = made.to_json()
    asked, model, words = request.to_json(), request.model, " ".join(_WORDS).split()
    start, shape = time.time() - 3e6, (request.width, request.height, request.num_frames, request.fps)
    for number in range(1, size.videos + size.waiting + 1):
        task_id, at, done = new_task_id(), start + number, number <= size.videos
        prompt, bytes_of_it = " ".join(chance.choices(words, k=14)), 100_000 + number
        own = asked | {"prompt": prompt, "seed": number} if size.whole_records else {"prompt": prompt}
        status = TaskStatus.COMPLETED if done else TaskStatus.PENDING
        ended = at if done else None
        asking = (number, task_id, status.value, model, json.dumps(own), "[]")
        task = (*asking, 0, number, int(done), 3, "0" * 64, at, ended)
        event = (task_id, 1, EventType.SUBMITTED.value, "{}", at)
        rows = ((*task, float(done), 1, False, False, False, 0, 0), event)
        if not done:
            yield (*rows, None, None)
            continue
        kept = json.dumps(record | {"task_id": task_id, "request": own}) if size.whole_records else "{}"
        file = (task_id, f"{task_id}.mp4", bytes_of_it, "0" * 64)
        shown = (number, task_id, key_of(task_id), at, model, False, False, shape[2] / shape[3], bytes_of_it)
        yield (
            *rows,
            (*file, *shape, 3.0, "[]", kept, at, model),
            (*shown, number % 100 == 0, bytes(24), prompt),
        )


def come_first(folder: Path, *, first: bool) -> None:
    """Give this process, what it starts, and the database in `folder` the processors before all others, or no longer.

    Raises:
        PermissionError: only root may.
    """
    policy, level = (os.SCHED_RR, 1) if first else (os.SCHED_OTHER, 0)
    databases = [one.pid for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(str(folder))]
    for pid in (0, *databases):
        with suppress(ProcessLookupError):
            os.sched_setscheduler(pid, policy, os.sched_param(level))


@contextmanager
def served(folder: Path, url: str | None, size: Size, *, first: bool) -> Iterator[httpx2.Client]:
    """Fill a database and run a server on it."""
    (folder / "home").mkdir(parents=True)
    database = Database(url or folder / "home" / "wan22.db")
    database.migrate()
    began = time.monotonic()
    fill(database, size)
    database.close()
    sys.stderr.write(f"{size.words}: filled in {time.monotonic() - began:.0f} s\n")
    if first:
        come_first(folder.parent, first=True)
    settings = {"WAN22_WORKER": "false"} | ({} if url is None else {"WAN22_DATABASE_URL": url})
    server = HomeServer(folder, settings)
    server.start()
    try:
        server.wait_answer()
        server.client.timeout = httpx2.Timeout(120.0)
        yield server.client
    finally:
        server.stop()
        if first:
            come_first(folder.parent, first=False)


def measure(ask: Callable[[int], httpx2.Response], times: int = TIMES) -> list[float]:
    """Return the milliseconds of each request, the first one left out."""
    found = []
    for index in range(times + 1):
        began = time.perf_counter()
        response = ask(index)
        found.append((time.perf_counter() - began) * 1000)
        response.raise_for_status()
    return sorted(found[1:])


def _row(what: str, found: list[float], bound: str) -> list[str]:
    cuts = quantiles(found, n=100, method="inclusive")
    return [what, f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", bound]


def tasks_rows(client: httpx2.Client) -> list[list[str]]:
    """Measure what a client does with 50,000 tasks behind it and 5,000 waiting."""
    body = {"model_type": "tiny-t2v-a14b", "prompt": "a red circle moving right on a navy background"}

    def submit(index: int) -> httpx2.Response:
        return client.post("/api/v1/generation/submit", json=body | {"seed": index})

    found = [_row("submit", measure(submit, 200), "p50 10, p99 50")]
    for what, path in (
        ("queue, 50 tasks", "/api/v1/queue?limit=50"),
        ("queue, 50 that completed", "/api/v1/queue?limit=50&status_filter=completed"),
        ("gallery, 50 videos", "/api/v1/outputs?limit=50"),
        ("gallery, 50 videos after 40,000", "/api/v1/outputs?limit=50&offset=40000"),
        ("gallery, 50 videos with two words", "/api/v1/outputs?limit=50&search=forest%20neon"),
    ):
        found.append(_row(what, measure(lambda _, path=path: client.get(path)), "30"))  # type: ignore[misc]
    ids = client.get("/api/v1/outputs/ids?limit=10000").json()["ids"]

    def batch(index: int) -> httpx2.Response:
        return client.post("/api/v1/outputs/batch", json={"ids": ids[index * 50 : index * 50 + 50]})

    found.append(_row("details of 50 videos by id", measure(batch), "30"))
    return found


def ids_rows(client: httpx2.Client) -> list[list[str]]:
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
        found.append(_row(f"{what}: {int(count):,}", times, bound))
    found.append(_row("gallery, 50 videos", measure(lambda _: client.get("/api/v1/outputs?limit=50"), 10), ""))
    return found


def main() -> None:
    """Measure with one kind of database, and write its tables into the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", choices=("sqlite", "postgresql"))
    parser.add_argument("part", choices=("tasks", "ids"))
    parser.add_argument("--videos", type=int, default=IDS.videos, help="size of the large gallery")
    parser.add_argument("--first", action="store_true", help="run before other programs, as root: where some run")
    arguments = parser.parse_args()
    machine = detect_hardware()
    size, ask = {"tasks": (TASKS, tasks_rows), "ids": (replace(IDS, videos=arguments.videos), ids_rows)}[arguments.part]
    with tempfile.TemporaryDirectory(prefix="wan22-lists-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(postgres_server(folder)) if arguments.database == "postgresql" else None
        url = None if server is None else server.new_database()
        with served(folder / "served", url, size, first=arguments.first) as client:
            load = os.getloadavg()[0]
            rows = table(("request", "p50 ms", "p99 ms", "bound ms"), ask(client))
            load = max(load, os.getloadavg()[0])
    beside = " Other programs ran beside it; server, client and database came before them." if arguments.first else ""
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores, load average {load:.1f}."
        f"{beside}\n\n"
        f"{size.words}:\n\n{rows}\n"
    )
    sys.stdout.write(text)
    command = f"python -m benchmarks.large_lists {arguments.database} {arguments.part}"
    begin, end = (f"<!-- {edge}: {command} -->" for edge in ("table", "end"))
    before, _, rest = REPORT.read_text().partition(begin)
    REPORT.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
