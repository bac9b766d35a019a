"""Has foreign files read by a confined process, and checks what it answers.

The process may have been taken over by the file, so its answer is data of unknown origin, too: of a fixed form, of
bounded size, and in time. Knows neither what texts mean nor the gallery.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.core.errors.access import RateLimited
from backend.core.errors.requests import ClipRefused

PROGRAM: Final = ("-P", "-s", "-B", "-m", "backend.services.foreign.program")
#: Where the program's own modules are.
_ROOT: Final = Path(__file__).parents[3]
#: Four million characters in JSON, each as six at most, and a picture of 512 pixels a side.
_MOST_BYTES: Final = 32 * 2**20
_CHUNK: Final = 2**16
#: How long a file waits for others to be read, in seconds.
_WAIT_SECONDS: Final = 20.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What reading one file may cost."""

    memory_bytes: int = 1536 * 2**20  #: address space, the libraries included
    cpu_seconds: int = 60
    wall_seconds: float = 90.0
    at_once: int = 2  #: files that are read at the same time


class Inspected(BaseModel):
    """What a file says of itself."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    kind: Literal["clip", "picture"]
    texts: dict[str, str] = Field(max_length=64)
    notes: list[str] = Field(max_length=16)
    manifest: bool  #: whether it has a C2PA manifest, which nobody verified
    confined: bool  #: whether the kernel refused system calls while it was read
    codec: str = Field("", pattern="^[a-z0-9]{0,8}$")
    width: int = Field(0, ge=0, le=4096)
    height: int = Field(0, ge=0, le=4096)
    frames: int = Field(0, ge=0, le=7200)
    fps: float = Field(0.0, ge=0.0, le=240.0, allow_inf_nan=False)
    picture: tuple[int, int] | None = None  #: width and height of the pixels


class ClipInspector:
    """Starts a process for each file; a few at once."""

    def __init__(self, limits: ReadingLimits = ReadingLimits()) -> None:
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.at_once)

    def texts(self, path: Path) -> Inspected:
        """Return what a clip or picture says of itself; no frame is decoded.

        Raises:
            ClipRefused: it is neither, or is damaged; or the process failed.
            RateLimited: too many others are being read.
        """
        return self._ask(path, "texts")[0]

    def clip(self, path: Path) -> tuple[Inspected, bytes]:
        """Return what a clip says of itself once each of its frames was decoded, and its middle frame.

        The frame is raw RGB, three bytes a pixel; `picture` has its size. Raises as `texts`.
        """
        about, pixels = self._ask(path, "clip")
        if about.picture is None or len(pixels) != 3 * about.picture[0] * about.picture[1]:
            raise ClipRefused(_CRASHED)
        return about, pixels

    def _ask(self, path: Path, wish: str) -> tuple[Inspected, bytes]:
        if os.name != "posix":
            raise ClipRefused("Foreign files are read on Linux and macOS alone", suggestions=("Use the server there.",))
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise RateLimited("Other files are being read", seconds=5)
        try:
            status, answer = self._run(path, wish)
        finally:
            self._places.release()
        line, _, pixels = answer.partition(b"\n")
        if status != 0:
            raise self._failure(status)
        try:
            if line.startswith(b'{"refused"'):
                raise ClipRefused(_Refusal.model_validate_json(line).refused)
            return Inspected.model_validate_json(line), pixels
        except ValidationError:
            log.error("foreign.answer_unreadable", wish=wish)
            raise ClipRefused(_CRASHED) from None

    def _run(self, path: Path, wish: str) -> tuple[int, bytes]:
        """Run the program on a file; return its exit status, negative for a signal, and what it wrote."""
        limits = self._limits
        command = [sys.executable, *PROGRAM, wish, str(limits.memory_bytes), str(limits.cpu_seconds)]
        # Nothing of this process's environment: it holds keys.
        environment = {"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        deadline = time.monotonic() + limits.wall_seconds
        with path.open("rb") as file:
            child = subprocess.Popen(
                command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=environment
            )
        with child:
            try:
                answer = _read_all(child, deadline)
                return child.wait(max(0.1, deadline - time.monotonic())), answer
            except (TimeoutError, subprocess.TimeoutExpired):
                return -signal.SIGXCPU, b""
            finally:
                child.kill()

    def _failure(self, status: int) -> ClipRefused:
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return ClipRefused("Reading the file takes too long")
        if status == _OUT_OF_MEMORY:
            return ClipRefused("Reading the file takes too much memory")
        log.error("foreign.process_failed", status=status)
        return ClipRefused(_CRASHED)


_CRASHED: Final = "The program that reads the file failed on it"
#: Exit status of a process that had no memory left for an answer.
_OUT_OF_MEMORY: Final = 3


class _Refusal(BaseModel):
    refused: str = Field(max_length=500, pattern=r"^[ -~]+$")


def _read_all(child: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Read what the child writes, until it ends.

    Raises:
        TimeoutError: it does not end in time, or writes too much.
    """
    if child.stdout is None:
        raise TimeoutError
    parts: list[bytes] = []
    total = 0
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(child.stdout.fileno(), _CHUNK)
            if not chunk:
                return b"".join(parts)
            parts.append(chunk)
            total += len(chunk)
            if total > _MOST_BYTES:
                raise TimeoutError
