"""`python -m benchmarks.damage`, or `make damage`: many seeds; exit status 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.damage.campaign import BYTES, Found, Outcome, prepared, try_seed
from benchmarks.home_server import machine


def main(arguments: list[str] | None = None) -> int:
    """Try the seeds, print and write what was found; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=Path("damage.json"), help="file for the result (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the homes are made (default: with temporary files)")
    given = parser.parse_args(arguments)
    console, folder = Console(), Path(tempfile.mkdtemp(prefix="wan22-damage-", dir=given.folder))
    found: list[Found] = []
    with prepared(folder / "prepared") as home:
        for seed in range(given.first, given.first + given.seeds):
            one = try_seed(seed, home, folder / str(seed))
            found.append(one)
            console.print(f"{datetime.now():%H:%M:%S}  seed {seed}: {one.outcome or 'broken'}", highlight=False)
            for sentence in one.broken:
                console.print(f"broken: {sentence}", style="red", markup=False)
            if not one.broken:
                shutil.rmtree(folder / str(seed))
    outcomes = Counter(one.outcome for one in found)
    table = Table("what a start made of it", "seeds", title=f"{BYTES} bytes of the database overwritten")
    for outcome in Outcome:
        table.add_row(outcome, str(outcomes[outcome]))
    console.print(table)
    bad = [one for one in found if one.broken]
    values = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "seeds": len(found),
        "outcomes": {outcome.name.lower(): outcomes[outcome] for outcome in Outcome},
        "broken": [one.to_json() for one in bad],
    }
    given.json.write_text(json.dumps(values, indent=1) + "\n")
    if bad:
        console.print(f"{len(bad)} seeds broke something. Everything is kept in {folder}", highlight=False)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the servers, too
    sys.exit(main())
