"""`python -m benchmarks.outages`, or `make outages`: each outage in the middle of a clip; exit status 1 on any harm."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.home_server import Late, machine
from benchmarks.outages.campaign import Found, run_kind
from benchmarks.outages.kinds import KINDS

#: How long an outage lasts, in seconds, longer than a lease.
_SECONDS: Final = 60.0
#: Of those that last another time.
_OWN_SECONDS: Final = {"database locked by another program": 40.0}
NAMES: Final = [name for kind in KINDS for name in kind.outages]


def main(arguments: list[str] | None = None) -> int:
    """Try every outage, print and write what was found; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, help="how long each lasts (default: 60, a lock of the database 40)")
    parser.add_argument("--lease", type=float, default=30.0, help="WAN22_LEASE_SECONDS (default: %(default)g)")
    parser.add_argument("--steps", type=int, default=60, help="of the clip (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path("outages.json"), help="file for the result (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the homes are made (default: with temporary files)")
    given = parser.parse_args(arguments)
    console, folder = Console(), Path(tempfile.mkdtemp(prefix="wan22-outages-", dir=given.folder))
    seconds = {name: given.seconds or _OWN_SECONDS.get(name, _SECONDS) for name in given.only or NAMES}
    settings = {"WAN22_LEASE_SECONDS": f"{given.lease:g}", "WAN22_HEARTBEAT_SECONDS": f"{given.lease / 6:g}"}
    found: list[Found] = []
    faults: list[str] = []
    not_run: dict[str, str] = {}
    for number, kind in enumerate(KINDS):
        wanted = [name for name in kind.outages if name in seconds]
        if wanted and (missing := kind.missing()) is not None:
            not_run |= dict.fromkeys(wanted, missing)
        elif wanted:
            try:
                for one in run_kind(kind, folder / str(number), seconds, given.steps, settings):
                    found.append(one)
                    console.print(f"{datetime.now():%H:%M:%S}  {one.outage}: {_verdict(one)}", highlight=False)
            except Late as late:
                faults.append(str(late))
    values = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "lease_seconds": given.lease,
        "steps": given.steps,
        "found": [one.to_json() for one in found],
        "not_run": not_run,
        "faults": faults,
    }
    _print(values, found, console)
    given.json.write_text(json.dumps(values, indent=1) + "\n")
    if faults or not all(one.is_unharmed for one in found):
        console.print(f"Everything is kept in {folder}", highlight=False)
        return 1
    shutil.rmtree(folder)
    return 0


def _verdict(found: Found) -> str:
    return "unharmed" if found.is_unharmed else "harmed"


def _print(values: dict[str, Any], found: list[Found], console: Console) -> None:
    table = Table("outage", "seconds", "at step", "attempt", "frames", "/ready", "submit", "", title="Outages")
    for one in found:
        row = one.outage, f"{one.seconds:g}", str(one.at_step), str(one.attempt), "same" if one.same_frames else "OTHER"
        table.add_row(*row, one.ready, one.submit, _verdict(one))
    console.print(table)
    for name, reason in values["not_run"].items():
        console.print(f"not run: {name}: {reason}", style="yellow", markup=False)
    for fault in values["faults"]:
        console.print(f"fault: {fault}", style="red", markup=False)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the servers, too
    sys.exit(main())
