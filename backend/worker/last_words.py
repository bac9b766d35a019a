"""What tells why a worker died: the end of what it wrote to its standard error, and the kernel's count of kills.

Runs in a thread of the supervisor's process. Keeps a bounded number of bytes, and repeats no secret.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

#: Lines and characters that are kept; a dump of all stacks of a worker has about this length.
_KEPT_LINES: Final = 300
_LINE_CHARS: Final = 400
#: What the error of a task repeats.
_QUOTED_LINES: Final = 3
_QUOTED_CHARS: Final = 500
#: Longest wait for what a dead worker has still in the pipe, in seconds; its own children may hold it open.
_REST_SECONDS: Final = 1.0
_STANDARD_ERROR: Final = 2
_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_UNPRINTABLE: Final = re.compile(r"[^\t -~\u00a0-\uffff]")
#: Where the interpreter begins to describe a crash in native code.
_CRASH: Final = "Fatal Python error"
_SECRETS: Final = (
    re.compile(r"\bhf_[A-Za-z0-9]{6,}"),
    re.compile(r"(?i)\bbearer\s+\S+"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),
    re.compile(r"(?i)((?:api[_-]?key|token|password|secret)\w*[\"']?\s*[=:]\s*)[\"']?[^\s\"',;&]+"),
)
#: Environment variables whose values are secrets; shorter values than this are words.
_SECRET_VARIABLES: Final = ("WAN22_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST_SECRET: Final = 6
_STATISTICS: Final = Path("/proc/vmstat")


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace what looks like a key, a token or a password, and the secrets of this process, by `***`."""
    for name in _SECRET_VARIABLES:
        secret = environment.get(name, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: f"{found[1] if found.re.groups else ''}***", text)
    return text


def memory_kills(statistics: Path | None = None) -> int:
    """Return how many processes the kernel has ended since its start because memory ran out (Linux 4.13 and later).

    Kills inside containers count as well. 0 where nobody counts.
    """
    with suppress(OSError, ValueError):
        for line in (statistics or _STATISTICS).read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


class LastWords:
    """The end of one worker's standard error."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Read `stream` until it ends, and close it."""
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._run, name="last-words", daemon=True)
        self._thread.start()

    def quote(self) -> str | None:
        """Return the last lines in one line, once the worker has ended; None when it wrote nothing."""
        self._thread.join(_REST_SECONDS)
        lines = [line for line in tuple(self._lines) if line.strip()]
        crash = next((number for number in reversed(range(len(lines))) if lines[number].startswith(_CRASH)), None)
        said = lines[-_QUOTED_LINES:] if crash is None else lines[crash : crash + _QUOTED_LINES]
        text = without_secrets(" | ".join(line.strip() for line in said))
        if len(text) > _QUOTED_CHARS:
            text = "…" + text[-_QUOTED_CHARS:] if crash is None else text[:_QUOTED_CHARS] + "…"
        return text or None

    def _run(self) -> None:
        with self._stream:
            for line in self._stream:
                with suppress(OSError):  # nobody reads our own standard error any more; the worker must not wait
                    os.write(_STANDARD_ERROR, line)
                text = _ANSI.sub("", line.decode("utf-8", "replace")).rstrip()
                self._lines.append(_UNPRINTABLE.sub("", text)[:_LINE_CHARS])
