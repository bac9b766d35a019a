"""`python -m benchmarks.chaos`, or `make chaos`: one campaign; exit status 1 when a promise was broken.

Campaigns of one seed send the same requests and have the same plan of kills; how far a task is when a kill meets it
depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.chaos.campaign import Campaign, Size
from benchmarks.chaos.report import print_result, shown, to_json


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign, print and write its result; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs to send (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=60, help="clips to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=22, help="of requests and kills (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="after which no more kills are sent (default: %(default)g)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("chaos.json"), help="file for the result (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the home is made (default: with temporary files)")
    given = parser.parse_args(arguments)
    size, console = Size(given.kills, given.tasks, given.seed, given.minutes), Console()
    folder = Path(tempfile.mkdtemp(prefix="wan22-chaos-", dir=given.folder))
    with shown(size, console) as show:
        result = Campaign(size, folder, show).run()
    values = to_json(result)
    print_result(values, console)
    given.json.write_text(json.dumps(values, indent=1) + "\n")
    if values["broken"]:
        console.print(f"Everything is kept in {folder}", highlight=False)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the server, too
    sys.exit(main())
