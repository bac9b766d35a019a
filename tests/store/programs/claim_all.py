"""Claim and complete tasks until none is left; write each id. Run as a process: URL and worker id are the arguments."""

import sys
from collections.abc import Callable
from typing import TypeVar

from backend.core.errors.surroundings import StoreUnavailable
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.store.samples import output_of

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Retry when the database is busy, as workers do."""
    while True:
        try:
            return call()
        except StoreUnavailable:
            continue


def main(url: str, worker_id: str) -> None:
    database = Database(url, checkpointer=False)
    store = TaskStore(database)
    say("ready")
    sys.stdin.readline()
    while (task := patiently(lambda: store.claim(worker_id, 300.0))) is not None:
        finish(store, task.id, task.lease_token or "")
        say(task.id)
    database.close()


def finish(store: TaskStore, task_id: str, token: str) -> None:
    patiently(lambda: store.complete(task_id, token, output_of(task_id)))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
