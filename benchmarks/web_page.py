"""How fast the page is there, how it bears a long queue, and whether it grows while it stays open.

`python -m benchmarks.web_page --minutes 10`. Needs Chromium and the built page (`make serve` builds it).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.home_server import HomeServer
from benchmarks.soak.sampler import Sample
from benchmarks.soak.slopes import fit
from benchmarks.web_gallery import WATCH, heap_mb, reported, smoothness, write_table
from tests.support.browser import PATIENCE_MS, launch

COMMAND: Final = "python -m benchmarks.web_page"
VISITS: Final = 10
WAITING: Final = 1000
#: Between two readings of the heap, in seconds.
SAMPLE_SECONDS: Final = 5.0
#: Readings at the beginning that do not count: caches fill, and code is compiled.
WARM_UP: Final = 6
#: Mocks that are kept waiting, so that the worker never has nothing to do.
AHEAD: Final = 3


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[HomeServer]:
    """Run a server in an empty home."""
    server = HomeServer(folder, settings)
    server.start()
    try:
        server.wait_answer()
        yield server
    finally:
        server.stop()


def _submit(server: HomeServer, number: int) -> None:
    body = {"model_type": "tiny-t2v-a14b", "prompt": f"a red circle number {number}", "num_frames": 5, "steps": 4}
    server.client.post("/api/v1/generation/submit", json=body).raise_for_status()


def visits(browser: Browser, server: HomeServer) -> Iterator[list[str]]:
    """Open the page in new profiles, until its form can be used."""
    took, painted = [], []
    for _ in range(VISITS):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        began = time.perf_counter()
        page.goto(server.url)
        page.get_by_test_id("prompt-input").fill("a red circle")
        took.append((time.perf_counter() - began) * 1000)
        painted.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        context.close()
    yield [
        f"{VISITS} first visits, until the prompt can be written: median, slowest",
        f"{median(took):.0f}, {max(took):.0f} ms",
        "1500 ms",
    ]
    yield [f"{VISITS} first visits, first paint: median, slowest", f"{median(painted):.0f}, {max(painted):.0f} ms", ""]


def long_queue(page: Page, server: HomeServer) -> Iterator[list[str]]:
    """Open the queue with many waiting tasks and go through it."""
    for number in range(WAITING):
        _submit(server, number)
    page.goto(server.url)
    page.get_by_test_id("prompt-input").wait_for()
    page.evaluate(WATCH)
    began = time.perf_counter()
    page.get_by_test_id("queue-button").click()
    page.get_by_test_id("task-card").first.wait_for()
    yield [f"open the queue of {WAITING:,} tasks", f"{(time.perf_counter() - began) * 1000:.0f} ms", ""]
    box = page.get_by_test_id("task-list").bounding_box()
    if box is None:
        raise RuntimeError("the queue has no list")

    def wheel() -> None:
        page.mouse.move(box["x"] + 100, box["y"] + 200)
        for _ in range(120):
            page.mouse.wheel(0, 400)
            page.wait_for_timeout(16)

    yield from smoothness(page, "120 notches of a wheel in it", wheel)


def open_for_long(page: Page, server: HomeServer, minutes: float) -> Iterator[list[str]]:
    """Keep the page open while mocks are made, and read its heap and its elements."""
    policy: dict[str, Any] = {"mode": "mock", "mock_seconds": 0.2}
    server.client.post("/api/v1/generation/policy", json=policy).raise_for_status()
    page.goto(server.url)
    page.get_by_test_id("prompt-input").wait_for()
    began, submitted, ended = time.monotonic(), 0, 0
    heap: list[Sample] = []
    elements: list[Sample] = []
    due = began
    while time.monotonic() - began < minutes * 60:
        counts = server.ask("/api/v1/queue", limit=1)
        if counts is not None:
            ended = counts["completed_tasks"]
            for _ in range(max(0, AHEAD - counts["pending_tasks"])):
                submitted += 1
                _submit(server, submitted)
        if time.monotonic() >= due:
            due += SAMPLE_SECONDS
            hours = (time.monotonic() - began) / 3600
            heap.append(Sample(hours, ended, 0, heap_mb(page)))
            elements.append(Sample(hours, ended, 0, page.evaluate("document.querySelectorAll('*').length")))
        page.wait_for_timeout(100)
    for name, unit, samples in (("JavaScript heap", "MB", heap), ("elements of the page", "", elements)):
        slope = fit(samples[WARM_UP:], "1,000 tasks")
        said = "too few readings" if slope is None else f"{slope.value:+.2f} ({slope.low:+.2f} to {slope.high:+.2f})"
        yield [
            f"{name} while {ended:,} clips are made in {minutes:g} minutes: {unit or 'count'} per 1,000 clips",
            f"{said}; {samples[WARM_UP].value:.1f} then {samples[-1].value:.1f}",
            "",
        ]


def main() -> None:
    """Measure, and write the table into the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="wan22-page-") as name, sync_playwright() as playwright:
        browser = launch(playwright)
        with served(Path(name) / "idle", WAN22_WORKER="false") as server:
            rows += visits(browser, server)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(PATIENCE_MS)
            rows += long_queue(page, server)
        with served(Path(name) / "busy") as server:
            server.wait_ready()
            rows += open_for_long(page, server, arguments.minutes)
        version = browser.version.split(".")[0]
        browser.close()
    text = reported(version, load, rows)
    sys.stdout.write(f"{text}\n")
    write_table(COMMAND, text)


if __name__ == "__main__":
    main()
