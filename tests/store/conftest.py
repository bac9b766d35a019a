"""Databases for the store's tests: every test that asks for `database` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.tasks import TaskStore


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/wan22.db"
    make: Callable[[], str] = request.getfixturevalue("new_postgres")
    return make()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A new database with the newest schema."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> TaskStore:
    """The task store of a new database."""
    return TaskStore(database)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A new home folder."""
    return Home(tmp_path / "home").create()
