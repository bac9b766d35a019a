"""How the page's gallery behaves with a million clips: in Chromium, on a server whose database has them.

`python -m benchmarks.web_gallery` (some minutes, 2 GB of disk). The clips are rows without files; the browser, the page
and the server are real. Needs Chromium and the built page (`make serve` builds it).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from backend.core.planning.hardware import detect_hardware
from backend.store.engine import Database
from benchmarks import large_lists
from benchmarks.home_server import HomeServer
from benchmarks.real_worker import table
from tests.support.browser import PATIENCE_MS, launch

REPORT: Final = Path(__file__).parents[1] / "docs" / "benchmarks" / "web.md"
COMMAND: Final = "python -m benchmarks.web_gallery"
#: Seconds between two clips: a million of them in nine and a half years.
SPACING: Final = 300
DATES: Final = 30
#: Movements of the pointer along the scale of dates, down and up again.
STEPS: Final = 240

#: A ThumbHash of a real clip without its last bytes, which are drawn for each row.
_HASH: Final = "11a7051d86"

WATCH: Final = """() => {
  window.long = []
  const note = list => { for (const one of list.getEntries()) long.push(one.duration) }
  new PerformanceObserver(note).observe({type: "longtask"})
  window.gaps = []
  let last = 0
  const frame = now => { if (last) gaps.push(now - last); last = now; requestAnimationFrame(frame) }
  requestAnimationFrame(frame)
}"""
_FORGET: Final = "() => { long.length = 0; gaps.length = 0 }"
#: All tiles in sight are known, and what the list shows is what the pointer went to.
_READY: Final = """() => {
  const box = document.querySelector("[data-testid=gallery-scroller]")?.getBoundingClientRect()
  if (!box) return false
  const cells = [...document.querySelectorAll("[data-testid=video-card]")].filter(one => {
    const {top, bottom} = one.getBoundingClientRect()
    return bottom > box.top && top < box.bottom
  })
  return cells.length > 0 && cells.every(one => !one.textContent.includes("Details follow"))
}"""
_TIMED: Final = """async before => {
  const place = () => document.querySelector("[data-testid=video-card]")?.dataset.clip
  const ready = READY
  const once = {once: true, capture: true}
  const pressed = await new Promise(done => addEventListener("pointerdown", event => done(event.timeStamp), once))
  while (place() === before || !ready()) await new Promise(requestAnimationFrame)
  return performance.now() - pressed
}""".replace("READY", _READY)


@contextmanager
def served(folder: Path, clips: int) -> Iterator[str]:
    """Fill a database with clips of ten years, and run a server on it."""
    (folder / "home").mkdir(parents=True)
    database = Database(folder / "home" / "wan22.db")
    database.migrate()
    large_lists.fill(database, large_lists.Size(clips, 0, whole_records=False))
    with database.begin() as connection:
        spread = (
            "UPDATE gallery SET created_at = created_at - (SELECT max(number) - gallery.number FROM gallery) * :gap"
        )
        connection.exec_driver_sql(spread.replace(":gap", str(SPACING)))
        connection.exec_driver_sql(f"UPDATE gallery SET placeholder = CAST(x'{_HASH}' || randomblob(16) AS BLOB)")  # noqa: S608
    database.close()
    server = HomeServer(folder, {"WAN22_WORKER": "false"})
    server.start()
    try:
        server.wait_answer()
        yield server.url
    finally:
        server.stop()


def measure(browser: Browser, url: str) -> list[list[str]]:
    """Open the gallery, scrub through it, scroll, and go to dates."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    began = time.perf_counter()
    page.goto(f"{url}/gallery")
    page.wait_for_function(_READY)
    first = (time.perf_counter() - began) * 1000
    scale = page.get_by_test_id("scrubber")
    scale.wait_for()
    box = scale.bounding_box()
    if box is None:
        raise RuntimeError("the gallery has no scale of dates")
    x, top, height = box["x"] + box["width"] / 2, box["y"] + 13, box["height"] - 26
    before = heap_mb(page)
    page.evaluate(WATCH)

    def scrub() -> None:
        page.mouse.move(x, top)
        page.mouse.down()
        for step in range(STEPS):
            share = 1 - abs(1 - 2 * step / STEPS)
            page.mouse.move(x, top + share * height)
        page.mouse.up()
        page.wait_for_function(_READY)

    def wheel() -> None:
        page.mouse.move(600, 500)
        for _ in range(120):
            page.mouse.wheel(0, 240)
        page.wait_for_function(_READY)

    rows = [
        ["open the page until the first screen is complete", f"{first:.0f} ms", ""],
        *smoothness(page, "scrub through all and back", scrub),
        *smoothness(page, "120 notches of a wheel", wheel),
    ]
    chance = random.Random(22)  # noqa: S311
    took = []
    for _ in range(DATES):
        was = page.get_by_test_id("video-card").first.get_attribute("data-clip")
        waiting = page.evaluate_handle("one => { window.timed = (TIMED)(one) }".replace("TIMED", _TIMED), was)
        page.mouse.move(x, top + chance.random() * height)
        page.mouse.down()
        page.mouse.up()
        took.append(page.evaluate("() => window.timed"))
        waiting.dispose()
    cuts = quantiles(took, n=20, method="inclusive")
    rows.append(
        [
            f"{DATES} dates, until each screen is complete: p50, p95, worst",
            f"{cuts[9]:.0f}, {cuts[18]:.0f}, {max(took):.0f} ms",
            "300 ms",
        ]
    )
    nodes = page.evaluate("document.querySelectorAll('*').length")
    rows.append(
        [
            "elements of the page, JavaScript heap before and after",
            f"{nodes}, {before:.0f} MB, {heap_mb(page):.0f} MB",
            "",
        ]
    )
    page.close()
    return rows


def smoothness(page: Page, what: str, deed: Callable[[], None]) -> Iterator[list[str]]:
    """Yield rows about long tasks and frames while a deed is done on a page that runs `WATCH`."""
    page.evaluate(_FORGET)
    session = page.context.new_cdp_session(page)
    # Time of the processor, which other programs do not stretch.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    busy = _busy(session)
    deed()
    busy = _busy(session) - busy
    session.detach()
    found: dict[str, Any] = page.evaluate("() => ({long, gaps})")
    long, gaps = found["long"], sorted(found["gaps"])
    cuts = quantiles(gaps, n=100, method="inclusive")
    yield [f"{what}: tasks over 50 ms, the longest", f"{len(long)}, {max(long, default=0):.0f} ms", "0"]
    yield [f"{what}: processor time of the page for each frame", f"{busy / max(1, len(gaps)) * 1000:.1f} ms", ""]
    yield [f"{what}: time between frames, p50 and p99", f"{cuts[49]:.0f}, {cuts[98]:.0f} ms", ""]


def _busy(session: CDPSession) -> float:
    """Return the processor time of the page's main thread so far, in seconds."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def heap_mb(page: Page) -> float:
    """Return the JavaScript heap in use after a collection, in MB."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    found: float = page.evaluate("performance.memory.usedJSHeapSize")
    session.detach()
    return found / 1e6


def reported(version: str, load: float, rows: list[list[str]], more: str = "") -> str:
    """Return a table under a line about the machine, the browser and the load before."""
    machine = detect_hardware()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores, shared by browser and server. "
        f"Chromium {version}, 1440x900{more}; load average {load:.1f} before.\n\n"
        + table(("what", "measured", "bound"), rows)
    )


def write_table(command: str, text: str) -> None:
    """Put a command's newest table into the report."""
    begin, end = f"<!-- table: {command} -->", f"<!-- end: {command} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    REPORT.write_text(found.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", REPORT.read_text()))


def main() -> None:
    """Measure, and write the table into the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="wan22-web-") as name,
        served(Path(name), arguments.clips) as url,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        load = os.getloadavg()[0]
        rows = measure(browser, url)
        version = browser.version.split(".")[0]
        browser.close()
    text = reported(version, load, rows, f"; {arguments.clips:,} clips")
    sys.stdout.write(f"{text}\n")
    if arguments.clips == parser.get_default("clips"):
        write_table(COMMAND, text)


if __name__ == "__main__":
    main()
