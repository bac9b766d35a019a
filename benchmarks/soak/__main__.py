"""`python -m benchmarks.soak`, or `make soak`: a busy half hour; exit status 1 when something grows.

Something grows when the whole confidence interval of its slope, after the warm-up, lies above its tolerance.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.home_server import HomeServer, Late, machine
from benchmarks.soak.chart import draw
from benchmarks.soak.listeners import Listeners
from benchmarks.soak.load import Load
from benchmarks.soak.sampler import Sampler
from benchmarks.soak.slopes import Limit, Slope, fit, warm

SETTINGS: Final = {
    "WAN22_AUTO_DOWNLOAD": "false",
    "WAN22_RESTART_LIMIT": "1000",  # the worker is killed on purpose
    "WAN22_RESTART_BACKOFF_SECONDS": "0",
}
#: What may grow, and how fast. A task leaves a row, some twenty events and the record of its video in the database.
LIMITS: Final = {
    "web memory, MiB": Limit("1,000 tasks", 5.0),
    "web open handles": Limit("hour", 5.0),
    "web threads": Limit("hour", 2.0),
    "worker memory, MiB": Limit("1,000 tasks", 10.0),
    "worker open handles": Limit("hour", 5.0),
    "worker threads": Limit("hour", 2.0),
    "database, MiB": Limit("1,000 tasks", 20.0),
    "write-ahead log, MiB": Limit("hour", 1.0),
}
CLIENTS: Final = 20
#: More than the server's pool has threads.
_CALLERS: Final = 64


def main(arguments: list[str] | None = None) -> int:
    """Run a soak, print and write its result; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of work (default: %(default)g)")
    parser.add_argument("--mocks", type=int, default=2000, help="mock tasks (default: %(default)s)")
    parser.add_argument("--reals", type=int, default=100, help="real tasks (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="of the worker (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=22, help="of the schedule (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path("soak.json"), help="file for the result (default: %(default)s)"
    )
    parser.add_argument(
        "--chart", type=Path, default=Path("soak.svg"), help="file for the chart (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the home is made (default: with temporary files)")
    given = parser.parse_args(arguments)
    console, folder = Console(), Path(tempfile.mkdtemp(prefix="wan22-soak-", dir=given.folder))
    values, sampler = _run(given, folder, console)
    slopes = _slopes(sampler)
    values |= {"slopes": {name: _plain(name, slope) for name, slope in slopes.items()}}
    grows = [name for name, slope in slopes.items() if slope is None or slope.exceeds(LIMITS[name].tolerance)]
    _print(values, slopes, console)
    given.json.write_text(json.dumps(values, indent=1) + "\n")
    given.chart.write_text(draw(sampler.series, {name: _in_words(name, slope) for name, slope in slopes.items()}))
    if grows or values["faults"]:
        console.print(f"Everything is kept in {folder}", highlight=False)
        return 1
    shutil.rmtree(folder)
    return 0


def _run(given: argparse.Namespace, folder: Path, console: Console) -> tuple[dict[str, Any], Sampler]:
    """Work through the schedule; return what was done, and the samples."""
    server = HomeServer(folder, SETTINGS)
    span = given.minutes * 60
    load = Load(server, mocks=given.mocks, reals=given.reals, kills=given.kills, seconds=span, seed=given.seed)
    listeners = Listeners(server.url, CLIENTS, given.seed)
    sampler = Sampler(server, lambda: load.ended)
    faults: list[str] = []
    began = time.monotonic()
    try:
        server.start()
        server.wait_ready()
        server.client.post("/api/v1/generation/policy", json={"mock_seconds": 0})
        _fill_pool(server)
        listeners.start()
        sampler.start()
        load.run(_shown(console, given.mocks + given.reals))
        faults += load.faults()
        sampler.stop()
        listeners.stop()
        if (status := server.stop()) != 0:
            faults.append(f"the server stopped with status {status}")
    except Late as late:
        faults.append(str(late))
    finally:
        server.close()
    done = dict(load.counts) | {"connections": listeners.connections, "messages": listeners.messages}
    values = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "seed": given.seed,
        "seconds": round(time.monotonic() - began),
        "done": done,
        "faults": faults,
    }
    return values, sampler


def _fill_pool(server: HomeServer) -> None:
    """Let every thread of the server's pool work once: it starts them when it first needs them, some after an hour."""
    with ThreadPoolExecutor(_CALLERS) as callers:
        list(callers.map(lambda _: server.ask("/api/v1/queue"), range(4 * _CALLERS)))


def _slopes(sampler: Sampler) -> dict[str, Slope | None]:
    return {name: fit(warm(sampler.series.get(name, [])), limit.per) for name, limit in LIMITS.items()}


def _plain(name: str, slope: Slope | None) -> dict[str, Any] | None:
    if slope is None:
        return None
    figures = {"slope": slope.value, "low": slope.low, "high": slope.high}
    rounded = {key: round(value, 3) for key, value in figures.items()}
    return rounded | {"per": LIMITS[name].per, "tolerance": LIMITS[name].tolerance, "samples": slope.samples}


def _in_words(name: str, slope: Slope | None) -> str:
    if slope is None:
        return "too few samples"
    return f"{slope.value:+.2f} per {LIMITS[name].per}, between {slope.low:+.2f} and {slope.high:+.2f}"


def _print(values: dict[str, Any], slopes: dict[str, Slope | None], console: Console) -> None:
    table = Table("series", "slope, with its 95 % interval", "tolerance", "", title=f"Soak, seed {values['seed']}")
    for name, slope in slopes.items():
        limit = LIMITS[name]
        verdict = "?" if slope is None else "grows" if slope.exceeds(limit.tolerance) else "holds"
        table.add_row(name, _in_words(name, slope), f"{limit.tolerance:g} per {limit.per}", verdict)
    console.print(table)
    done = ", ".join(f"{count} {what}" for what, count in values["done"].items())
    console.print(f"{values['seconds']} s on {values['machine']}: {done}", highlight=False)
    for fault in values["faults"]:
        console.print(f"fault: {fault}", style="red", markup=False)


def _shown(console: Console, total: int) -> Callable[[int, int], None]:
    """Return a function that prints a line at each twentieth of the way."""
    last = -1

    def line(submitted: int, ended: int) -> None:
        nonlocal last
        mark = 20 * ended // total
        if mark != last:
            last = mark
            console.print(
                f"{datetime.now():%H:%M:%S}  {submitted} of {total} submitted, {ended} ended", highlight=False
            )

    return line


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the server, too
    sys.exit(main())
