"""Finish a task as a worker does, then send its message as a server does. Dies where WAN22_FAULTS says."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.services.webhooks.test_delivery import Office
from tests.store.samples import claimed, output_of


def main(home: Path, task_id: str) -> None:
    office = Office(home)
    _, token = claimed(office.tasks)
    office.tasks.complete(task_id, token, output_of(task_id))
    office.send(office.sender())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
