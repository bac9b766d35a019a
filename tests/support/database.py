"""New databases without the wait for one: the schema is made once in a process, and copied."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from backend.core.paths import Home
from backend.store.engine import Database


def put_new_database(home: Home) -> None:
    """Put the SQLite database that a first start makes into a home that has none."""
    if not home.database.exists():
        home.create()
        home.database.write_bytes(_first())


@cache
def _first() -> bytes:
    with tempfile.TemporaryDirectory(prefix="wan22-test-") as folder:
        file = Path(folder) / "wan22.db"
        database = Database(f"sqlite:///{file}")
        database.migrate()
        database.close()
        return file.read_bytes()
