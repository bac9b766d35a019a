"""Submit tasks until killed; write each id after its commit was acknowledged. The URL is the argument."""

import sys

from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.store.samples import submit


def main(url: str) -> None:
    store = TaskStore(Database(url, checkpointer=False))
    while True:
        sys.stdout.write(submit(store).id + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
