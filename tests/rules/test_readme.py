"""Every command of the README runs as pasted, on a checkout with nothing but its environment and its sample image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import LiveServer

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
#: The address that the README uses, which the server under test cannot have.
ADDRESS = "http://127.0.0.1:8000"


def _commands() -> list[str]:
    """Return the commands in their order, each with its continuation lines."""
    return [
        command
        for block in BLOCKS
        for command in re.split(r"(?<!\\)\n", block)
        if command.strip() and not command.startswith("#")
    ]


def test_every_make_target_exists() -> None:
    targets = [command.split()[1] for command in _commands() if command.startswith("make ")]
    assert {"demo", "test", "serve"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_every_other_command_runs_as_pasted(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    commands = [command for command in _commands() if not command.startswith("make ")]
    assert len(commands) > 10
    server = live_server()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = os.environ | {"WAN22_HOME": str(server.home), "PYTHONPATH": str(ROOT)}
    for command in commands:
        done = subprocess.run(
            ["bash", "-ec", command.replace(ADDRESS, server.url)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("curl"):
            assert '"success": false' not in done.stdout, command
            assert '"error"' not in done.stdout, f"{command}\n{done.stdout}"
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"clip.mp4", "clip-replay.mp4", "growing.mp4", "chalk.mp4"}


def test_nothing_tells_anybody_to_install_another_project() -> None:
    checked = 0
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "backend").rglob("*.py")):
        checked += 1
        assert not re.search(r"pip install [^\n]*\bwan22(?!-server)\b", path.read_text()), path.name
    assert checked > 200
