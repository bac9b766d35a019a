"""`wan22 models` on a home folder, with a stand-in for the hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.models.manager import EMBEDDED_MODELS
from tests.cli.support import invoke, wan22
from tests.support.hub import COMMIT, Answer, StandIn, repository_files, stand_in

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in(repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        # The library reads the variable when it is imported, which another test may have done.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


def test_a_model_is_fetched_shown_checked_repaired_and_removed(tmp_path: Path, hub: StandIn) -> None:
    home = tmp_path / "home"
    listed = invoke("models", "list", home=home).stdout
    assert listed.count("available") == 3
    assert listed.count("missing") == 3
    done = wan22("models", "download", "t2v", home=home)
    assert done.returncode == 0, done.stderr
    assert "T2V-A14B is complete and verified" in done.stdout
    assert f"downloading {VAE}" in done.stderr
    shown = json.loads(invoke("models", "show", "T2V-A14B", home=home).stdout)
    assert (shown["status"], shown["commit"]) == ("available", COMMIT)
    assert VAE in shown["files"]
    assert "files are intact" in invoke("models", "verify", "T2V-A14B", home=home).stdout

    file = home / "models" / "T2V-A14B" / VAE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "files are there" in invoke("models", "verify", "T2V-A14B", "--quick", home=home).stdout
    found = invoke("models", "verify", "T2V-A14B", home=home)
    assert found.returncode == 1
    assert f"{VAE}: corrupted" in found.stdout
    assert "--repair" in found.stderr
    hub.requests.clear()
    repaired = invoke("models", "verify", "T2V-A14B", "--repair", home=home)
    assert repaired.returncode == 0, repaired.stderr
    assert hub.fetched() == Counter([VAE])
    assert file.read_bytes() == hub.files[VAE]

    assert invoke("models", "remove", "T2V-A14B", "--yes", home=home).returncode == 0
    assert not [path for path in (home / "models").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_removing_asks_first_and_leaves_the_embedded_models(tmp_path: Path, hub: StandIn) -> None:
    home = tmp_path / "home"
    assert invoke("models", "download", "T2V-A14B", home=home).returncode == 0
    asked = wan22("models", "remove", "T2V-A14B", home=home)
    assert asked.returncode != 0
    assert (home / "models" / "T2V-A14B" / VAE).exists()
    refused = invoke("models", "remove", "tiny-t2v-a14b", "--yes", home=home)
    assert refused.returncode == 1
    assert "ships with wan22" in refused.stderr


def test_errors_are_sentences_with_a_next_step(tmp_path: Path, hub: StandIn) -> None:
    home = tmp_path / "home"
    hub.answers.append(Answer(403, {"X-Error-Code": "GatedRepo"}))
    for arguments, said in (
        (["download", "T2V-A14B"], "HF_TOKEN"),
        (["download", "tiny-t2v-a14b"], "ships with wan22"),
        (["download", "nobody"], "Must be one of"),
        (["verify", "T2V-A14B"], "wan22 models download T2V-A14B"),
        (["remove", "T2V-A14B", "--yes"], "is not here"),
    ):
        done = invoke("models", *arguments, home=home)
        assert done.returncode == 1
        assert said in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_has_arrived(tmp_path: Path, hub: StandIn) -> None:
    home = tmp_path / "home"
    hub.hold(6_000_000)
    env = os.environ | {"WAN22_HOME": str(home)}
    command = [sys.executable, "-m", "backend.cli", "models", "download", "T2V-A14B"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert hub.held.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "what has arrived is kept" in said
    assert "Traceback" not in said
    hub.go_on()
    assert "partial" in invoke("models", "list", home=home).stdout
    assert invoke("models", "download", "T2V-A14B", home=home).returncode == 0
    assert sum(hub.served.values()) < 2 * sum(map(len, hub.files.values()))
