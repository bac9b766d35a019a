"""Records docs/first-evening.md: runs every command of a newcomer's first evening and writes down what it prints.

`python -m docs.first_evening` records it in a minute or two; a test repeats the commands that need no server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "first-evening.md"
COLUMNS: Final = 110
_SECONDS: Final = 180.0
_INTRODUCTION: Final = """# The first evening

What the command line prints, recorded by `python -m docs.first_evening` on a machine with two processor cores and no
graphics card, in an empty home folder. Only the paths are shortened. A command ends with status 0 unless a line says
otherwise: 1 when something failed, 2 when it was called wrongly, 130 when it was stopped.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """Commands that answer one question."""

    title: str
    commands: tuple[str, ...]
    needs_server: bool = False


CIRCLE: Final = '"a red circle moving right on a navy background"'
#: Commands whose output is the same everywhere, and that take a second.
STEADY: Final = (
    Section(
        "What cannot work is refused before anything starts",
        (
            f"wan22 generate {CIRCLE} --size 4000x4000",
            f"wan22 generate {CIRCLE} --steps 1000",
            f"wan22 generate {CIRCLE} --guidance nan",
            f"wan22 generate {CIRCLE} -o nowhere/clip.mp4",
            f"wan22 generate {CIRCLE} -o clip.gif",
            f"wan22 generate {CIRCLE} --image missing.png",
            "WAN22_DEVICE=gpu wan22 serve",
            "WAN22_PORT=http wan22 serve",
        ),
    ),
    Section(
        "A slip of the finger is understood",
        (
            "wan22 genrate",
            f"wan22 generate {CIRCLE} --model tny-t2v-a14b",
            f"wan22 generate {CIRCLE} --steps many",
            "wan22 loras show tiny_chalc",
            "wan22 queue cancel last",
            "wan22 show last",
            "wan22 queue --server foo::bar",
            "ALL_PROXY=socks5://proxy:1080 wan22 queue --server http://192.0.2.7:8000",
        ),
    ),
    Section("Help shows every default", ("wan22 queue -h", "wan22 plan -h")),
)
LIVE: Final = (
    Section(
        "The first clips",
        (
            f"wan22 generate {CIRCLE} --seed 7 --show --gif --upscale 4 -o circle.mp4",
            'wan22 generate "a cat riding a bicycle" --seed 7 -o cat.mp4',
            "wan22 replay cat.mp4 --check 2>/dev/null | tail -1",
        ),
        needs_server=True,
    ),
    Section(
        "What was made",
        (
            "wan22 list",
            "wan22 show last",
            "wan22 list --json | head -5",
            "wan22 open last",
            "wan22 rm last --yes",
            "wan22 rm last < /dev/null",
            "wan22 queue",
            "wan22 queue watch",
            "wan22 queue clear",
        ),
        needs_server=True,
    ),
    Section("Models and what they take", ("wan22 models list", "wan22 plan", "wan22 plan tiny")),
    Section(
        "A worker that cannot start is said at once", (f"WAN22_DEVICE=cuda:9 wan22 generate {CIRCLE} -o never.mp4",)
    ),
)


class Session:
    """A shell in an empty folder, with an empty home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._shell = shutil.which("bash") or "/bin/bash"
        shim = self._wan22 = folder / "bin" / "wan22"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m backend.cli "$@"\n')
        shim.chmod(0o755)
        (folder / "here").mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAN22_", "DISPLAY"))}
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
        self.env = kept | {
            "WAN22_HOME": str(self._home),
            "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": str(COLUMNS),
            "TERM": "dumb",
        }

    def run(self, command: str) -> str:
        """Run one command line and return what it printed and its status, as the page shows it."""
        done = subprocess.run(
            [self._shell, "-o", "pipefail", "-c", command],
            cwd=self._folder / "here",
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
        )
        return self.shown(command, done.stdout, done.returncode)

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start one command line without waiting for it; its output is in the pipe."""
        return subprocess.Popen(
            [self._shell, "-c", f"exec {command}"],
            cwd=self._folder / "here",
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def shown(self, command: str, output: str, status: int) -> str:
        """Return a command with its output as the page shows it: with short paths and without trailing blanks."""
        text = output.replace(str(self._home), "~/.wan22").replace(f"{self._folder}/here/", "")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text)
        text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")
        ended = f"\n(status {status})" if status else ""
        return f"$ {command}\n{text}{ended}"

    @contextmanager
    def server(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server of this home until the block ends."""
        process = self.serve()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a server and return once its worker is ready."""
        log = (self._folder / "server.log").open("ab")
        process = subprocess.Popen(
            [self._wan22, "serve", "--port", "0"], env=self.env, stdout=log, stderr=log, cwd=self._folder
        )
        log.close()
        announced, deadline = self._home / "server.json", time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            try:
                url = json.loads(announced.read_text())["url"]
                if httpx2.get(f"{url}/ready", timeout=5, trust_env=False).is_success:
                    return process
            except (OSError, ValueError, httpx2.HTTPError):
                pass
            time.sleep(0.2)
        process.kill()
        raise TimeoutError("the server did not come up")


def interrupted(session: Session) -> str:
    """Record Ctrl-C, and a server that dies and comes back while a command waits for it."""
    slow = f"wan22 generate {CIRCLE} --steps 100 -o long.mp4"
    parts = []
    with session.server():
        process = session.start(slow)
        lines = _until(process, "Step ")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        parts.append(
            session.shown(f"{slow}   # and Ctrl-C", lines[-1] + rest.removeprefix(lines[-1]), process.returncode)
        )
    server = session.serve()
    process = session.start(slow.replace("100", "60"))
    lines = _until(process, "Step ")
    server.kill()
    server.wait()
    lines += _until(process, "server is gone")
    again = session.serve()
    rest, _ = process.communicate(timeout=_SECONDS)
    told = [lines[-2], lines[-1], "...\n", *[f"{line}\n" for line in rest.splitlines()[-4:]]]
    parts.append(
        session.shown(f"{slow.replace('100', '60')}   # and the server is killed", "".join(told), process.returncode)
    )
    again.send_signal(signal.SIGTERM)
    again.wait(60)
    return _fenced("Ctrl-C, and a server that dies", parts)


def _until(process: subprocess.Popen[str], word: str) -> list[str]:
    """Return the lines of a running command up to the one with this word."""
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if word in line:
            return lines
    raise ValueError(f"{word!r} was not printed: {''.join(lines)}")


def page_section(section: Section, session: Session) -> str:
    """Run the commands of a section and return it as the page shows it."""
    return _fenced(section.title, [session.run(command) for command in section.commands])


def _fenced(title: str, parts: list[str]) -> str:
    return f"\n## {title}\n\n```\n" + "\n\n".join(parts) + "\n```\n"


def main() -> None:
    """Record the page."""
    with tempfile.TemporaryDirectory(prefix="first-evening-") as folder:
        session = Session(Path(folder))
        steady = [page_section(section, session) for section in STEADY]
        with session.server():
            live = [page_section(section, session) for section in LIVE if section.needs_server]
        live.append(interrupted(session))
        live += [page_section(section, session) for section in LIVE if not section.needs_server]
    PAGE.write_text(_INTRODUCTION + "".join([*live, *steady]), encoding="utf-8")


if __name__ == "__main__":
    main()
