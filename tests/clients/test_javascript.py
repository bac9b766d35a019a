"""The JavaScript package `openai` on a real server with its worker: what `javascript/videos.mjs` says of each case."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.support import make_png
from tests.clients.conftest import Clients
from tests.support.node import NODE, packages_of

FOLDER = Path(__file__).parent / "javascript"
SCRIPT = FOLDER / "videos.mjs"
CASES = re.findall(r"^  async (\w+)\(\) \{$", SCRIPT.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def results(clients: Clients, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Run every case in one process, and return the error of each; None = it passed."""
    place = tmp_path_factory.mktemp("javascript")
    shutil.copy(SCRIPT, place)
    (place / "node_modules").symlink_to(packages_of(FOLDER))
    image = place / "start.png"
    image.write_bytes(make_png(64, 64))
    given = {"url": clients.server.url, "proxy": clients.proxy.url, "keys": clients.keys, "image": str(image)}
    done = subprocess.run(
        [str(NODE), "--no-deprecation", SCRIPT.name],
        cwd=place,
        env=os.environ | {"GIVEN": json.dumps(given)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    assert list(answer) == CASES
    return answer


@pytest.mark.parametrize("case", CASES)
def test_the_package(results: dict[str, str | None], case: str) -> None:
    assert results[case] is None, results[case]


def test_answers_were_lost(clients: Clients, results: dict[str, str | None]) -> None:
    """Each click arrived as often as its answers were lost, and once more if one got through."""
    assert results
    attempts = sorted(number for click, number in clients.proxy.attempts.items() if click.startswith("js-"))
    assert attempts == [2, 2, 2, 2, 2, 3, 3, 3]


def test_the_lockfile_names_no_registry() -> None:
    """Whoever installs uses the registry of their own machine; what arrives is compared with the digests."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    for name, one in packages.items():
        assert "resolved" not in one, name
        assert one["integrity"].startswith("sha512-"), name
