"""A server as started by `wan22 serve`, with a home of its own, that may be killed and started again at any moment.

Knows the processes of its home by their environment, so that none can be overlooked, whoever its parent has become.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

#: For every server: a processor, one core of it, so that another is left to the campaign, and nothing from elsewhere.
_SMALL: Final = {"WAN22_DEVICE": "cpu", "WAN22_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
#: Longest wait for a start, in seconds: importing torch takes 20 s on a loaded machine.
START_SECONDS: Final = 180.0
#: Longest wait for an ordered stop, in seconds.
STOP_SECONDS: Final = 30.0
#: Pause between two looks at something that is awaited, in seconds.
POLL_SECONDS: Final = 0.02


class Late(Exception):
    """Something did not happen before its deadline."""


class HomeServer:
    """One home, one port, and the newest server process on them."""

    def __init__(self, folder: Path, settings: Mapping[str, str], home: Path | None = None) -> None:
        """Prepare; `settings` are environment variables. Temporary files of all processes go into `folder`, too."""
        self.home = home or folder / "home"
        self.temporary = folder / "tmp"
        self.log = folder / "server.log"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        own = {"WAN22_HOME": self.home, "TMPDIR": self.temporary, "TORCHINDUCTOR_CACHE_DIR": folder / "torch"}
        self._environment = os.environ | _SMALL | {name: str(path) for name, path in own.items()} | dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0  #: monotonic time of the newest start
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=15.0, trust_env=False)

    @property
    def url(self) -> str:
        """The address, the same after every start."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the web process, which starts a worker; does not wait."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "serve", "--port", str(self._port)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started_at = time.monotonic()

    def wait_ready(self) -> None:
        """Wait until the server answers and a worker can take tasks. Raises as `wait_answer`."""
        self._wait(self._has_idle_worker, "a worker that waits for tasks")

    def wait_answer(self) -> None:
        """Wait until the server answers.

        Raises:
            Late: it did not come up; the message has the end of its log.
        """
        self._wait(lambda: self.ask("/live") is not None, "an answer of the server")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_for(condition, START_SECONDS, what)
        except Late as error:
            raise Late(f"{error}:\n{self.log_end()}") from None

    def _has_idle_worker(self) -> bool:
        answer = self.ask("/api/v1/workers")
        return answer is not None and any(worker["state"] in ("idle", "busy") for worker in answer["workers"])

    def ask(self, path: str, **query: Any) -> Any:
        """Return the JSON answer to a GET; None while nobody answers or the answer is an error."""
        try:
            answer = self.client.get(path, params=query)
            return answer.json() if answer.is_success else None
        except (httpx2.HTTPError, ValueError):  # it was killed in the middle of its answer
            return None

    @property
    def is_running(self) -> bool:
        """Whether the web process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the web process; None while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def worker(self) -> psutil.Process | None:
        """The worker process of this server; None while there is none."""
        if (pid := self.pid) is None:
            return None
        with suppress(psutil.Error):
            for child in psutil.Process(pid).children():
                if "worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    def kill(self) -> None:
        """Send SIGKILL to the web process and collect it; its worker finds out by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Stop in order; return the exit status.

        Raises:
            Late: the server did not end; it has been killed.
        """
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Late(f"the server did not stop within {STOP_SECONDS:g} s") from None

    def close(self) -> None:
        """End every process of this home, whatever state it is in."""
        self.client.close()
        self.kill()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that run in this home, orphans included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it ended meanwhile, or belongs to somebody else
                mine = process.environ().get("WAN22_HOME") == str(self.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def log_end(self, lines: int = 20) -> str:
        """Return the last lines of the log of all processes."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


def wait_for(probe: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the probe succeeds.

    Raises:
        Late: the deadline passed first.
    """
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise Late(f"there was no {what} within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def machine() -> str:
    """Say what the server runs on: cores, system and Python version, without the machine's name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, no GPU used, {platform.system()}, Python {platform.python_version()}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
