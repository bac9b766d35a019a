"""The log file: bounded while processes write it, and never a reason to stop."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.commands.console.advice import unforeseen
from backend.core.log_file import MAX_RECORD_BYTES, BoundedLogFile
from backend.core.settings import load_settings
from backend.store.engine import Database
from tests.commands.support import wan22

WRITER = """
import sys
from backend.core.logging import configure_logging
from backend.core.settings import load_settings
import structlog
configure_logging(load_settings())
for number in range(400):
    structlog.get_logger("writer").info("said", who=sys.argv[1], number=number, filler="x" * 100)
"""


def logger(handler: logging.Handler) -> logging.Logger:
    made = logging.Logger("test")
    made.addHandler(handler)
    return made


def test_a_file_keeps_its_limit_and_its_generations(tmp_path: Path) -> None:
    handler = BoundedLogFile(tmp_path / "log", max_bytes=1000, generations=2)
    log = logger(handler)
    for number in range(500):
        log.info("record %d", number)
    handler.close()
    kept = sorted(path for path in tmp_path.iterdir() if path.name != "log.lock")
    assert [path.name for path in kept] == ["log", "log.1", "log.2"]
    assert all(0 < path.stat().st_size <= 1000 for path in kept)
    lines = "".join(path.read_text() for path in reversed(kept)).splitlines()
    assert lines == [f"record {number}" for number in range(500 - len(lines), 500)]


def test_two_processes_share_a_bounded_file(tmp_path: Path) -> None:
    variables = {"WAN22_HOME": str(tmp_path), "WAN22_LOG_FILE": "server.log", "WAN22_LOG_MAX_MB": "0.02"}
    variables |= {"WAN22_LOG_GENERATIONS": "20"}
    (tmp_path / "logs").mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], env=os.environ | variables, stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    said = [writer.communicate(timeout=100)[1] for writer in writers]
    assert said == [b"", b""]
    files = list((tmp_path / "logs").glob("server.log*"))
    logs = [path for path in files if path.suffix != ".lock"]
    assert len(logs) > 3
    # Each of the two may append one record to a file that the other is moving.
    assert all(path.stat().st_size < 20_000 + 1000 for path in logs)
    lines = [line for path in logs for line in path.read_text().splitlines()]
    assert sorted(line.partition("number=")[2].split()[0] for line in lines) == sorted(
        str(number) for number in range(400) for _ in "12"
    )


def test_a_long_record_is_cut(tmp_path: Path) -> None:
    handler = BoundedLogFile(tmp_path / "log", max_bytes=10**6, generations=1)
    logger(handler).info("begin %s end", "x" * 10**6)
    handler.close()
    text = (tmp_path / "log").read_text()
    assert len(text) <= MAX_RECORD_BYTES + 1
    assert text.startswith("begin ")
    assert "[cut]" in text
    assert text.endswith(" end\n")


def test_what_cannot_be_written_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "missing"
    handler = BoundedLogFile(folder / "log", max_bytes=1000, generations=1)
    log = logger(handler)
    log.info("first")
    assert capsys.readouterr().err == "first\n"
    full = logger(BoundedLogFile(Path("/dev/full"), max_bytes=1000, generations=1))
    full.info("no space")
    assert capsys.readouterr().err == "no space\n"
    folder.mkdir()
    log.info("second")
    handler.close()
    assert (folder / "log").read_text() == "second\n"
    assert capsys.readouterr().err == ""


def test_a_folder_that_allows_no_older_files_keeps_the_limit(tmp_path: Path) -> None:
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "in the way").touch()
    handler = BoundedLogFile(tmp_path / "log", max_bytes=1000, generations=1)
    for number in range(500):
        logger(handler).info("record %d", number)
    handler.close()
    assert (tmp_path / "log").stat().st_size <= 1000
    assert (tmp_path / "log").read_text().endswith("record 499\n")


def test_a_server_whose_log_cannot_be_written_says_why_it_ends_on_stderr(tmp_path: Path) -> None:
    database = Database(load_settings(home=tmp_path).database)
    database.migrate()  # a worker waits for the server that does it
    database.close()
    told = wan22(
        "worker", home=tmp_path, env={"WAN22_LOG_FILE": "/dev/full", "WAN22_DEVICE": "cuda:99", "WAN_22X": "1"}
    )
    assert "settings.ignored" in told.stderr
    assert "Traceback" not in told.stderr


def test_only_the_newest_tracebacks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_HOME", str(tmp_path))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "server.log").touch()
    for number in range(30):
        unforeseen(RuntimeError(f"error {number} " + "x" * 200_000))
    kept = list(logs.glob("wan22-error-*.log"))
    assert len(kept) == 10
    assert all(path.stat().st_size <= MAX_RECORD_BYTES for path in kept)
    assert (logs / "server.log").exists()
