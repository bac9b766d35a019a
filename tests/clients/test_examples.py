"""Every example makes a video, and fails with a message and a status when the server refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Clients
from tests.support.node import NODE, packages_of

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = {".sh": "bash", ".py": sys.executable, ".mjs": str(NODE)}
#: Makes no video; tests/services/webhooks/test_example.py runs it.
RECEIVER = "webhook_receiver.py"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in PROGRAMS and path.name != RECEIVER)
PROMPT = "a red circle moving right on a navy background"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of somebody who has copied the examples and installed what they need."""
    folder = tmp_path_factory.mktemp("examples")
    for name in NAMES:
        shutil.copy(EXAMPLES / name, folder)
    (folder / "node_modules").symlink_to(packages_of(Path(__file__).parent / "javascript"))
    return folder


def _run(clients: Clients, place: Path, name: str, *arguments: str, key: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAMS[Path(name).suffix], name, *arguments],
        cwd=place,
        env=os.environ | {"WAN22_URL": clients.server.url, "WAN22_KEY": key, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_example_makes_a_video(clients: Clients, place: Path, name: str) -> None:
    done = _run(clients, place, name, PROMPT, f"{name}.mp4", key=clients.keys["maker"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{name}.mp4"
    assert (place / f"{name}.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_why_it_made_none(clients: Clients, place: Path, name: str) -> None:
    done = _run(clients, place, name, PROMPT, f"{name}.none", key="wrong")
    assert done.returncode != 0
    assert "key" in done.stdout + done.stderr
    assert not (place / f"{name}.none").exists()


def test_every_example_is_in_the_list() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert [name for name in (*NAMES, RECEIVER) if f"[{name}]({name})" not in text] == []
