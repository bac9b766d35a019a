"""What is kept of a worker's standard error: the end, in one bounded line, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.domain import TaskStatus
from backend.worker.last_words import LastWords, memory_kills, without_secrets
from backend.worker.supervisor import Supervisor
from tests.worker.conftest import Queue


def words_of(program: str) -> str | None:
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert process.stderr is not None
    words = LastWords(process.stderr)
    process.wait(60)
    return words.quote()


def test_the_last_lines_are_quoted_and_everything_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys\nfor n in range(5000): print('line', n, '\\x1b[31mred\\x1b[0m \\x07', file=sys.stderr)"
    assert words_of(program) == "line 4997 red | line 4998 red | line 4999 red"
    assert capfd.readouterr().err.count("line") == 5000


def test_a_silent_worker_has_no_last_words() -> None:
    assert words_of("pass") is None


def test_a_crash_in_native_code_is_quoted_from_its_beginning() -> None:
    program = (
        "import ctypes, faulthandler, sys\n"
        "print('before', file=sys.stderr, flush=True)\n"
        "faulthandler.enable()\n"
        "ctypes.string_at(0)\n"
    )
    words = words_of(program)
    assert words is not None
    assert words.startswith("Fatal Python error: Segmentation fault | ")


def test_a_very_long_line_is_cut() -> None:
    words = words_of("import sys; sys.stderr.write('x' * 1_000_000)")
    assert words is not None
    assert 300 < len(words) < 600


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token hf_abcdefghij0123 refused", "token *** refused"),
        ("Authorization: Bearer abc.def-1", "Authorization: ***"),
        ("postgresql://wan22:geheim@db/wan22", "postgresql://***@db/wan22"),
        ("api_key=k123, password: 'p 1'", "api_key=***, password: *** 1'"),
        ("the server's own-long-key again", "the server's *** again"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_are_not_repeated(text: str, shown: str) -> None:
    assert without_secrets(text, {"WAN22_API_KEY": "own-long-key", "HF_TOKEN": "to"}) == shown


def test_a_reader_that_is_gone_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr("backend.worker.last_words._STANDARD_ERROR", writing)
    assert words_of("import sys; print('still said', file=sys.stderr)") == "still said"
    os.close(writing)


def test_the_kernels_kills_are_counted_and_no_count_is_none(tmp_path: Path) -> None:
    statistics = tmp_path / "vmstat"
    assert memory_kills(statistics) == 0
    statistics.write_text("pgfault 12\noom_kill 3\nswap_ra 0\n")
    assert memory_kills(statistics) == 3
    assert memory_kills() >= 0


def test_a_worker_that_the_kernel_ended_for_memory_is_reported_as_such(
    queue: Queue, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter(range(1000))
    monkeypatch.setattr("backend.worker.supervisor.memory_kills", lambda: next(kills))
    task = queue.submit(max_attempts=1)
    with monkeypatch.context() as first_worker_only:
        first_worker_only.setenv("WAN22_FAULTS", "denoise.step:1=kill")
        supervisor = supervise()
        failed = queue.wait_status(task.id, TaskStatus.FAILED)
    assert failed.error_code == "out_of_memory"
    assert "the kernel ended the worker because memory ran out while it denoised" in (failed.error_message or "")
    assert failed.error_suggestions
    assert "memory ran out" in (supervisor.state.reason or "")
