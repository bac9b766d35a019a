"""`wan22 models` on a home folder, with a stand-in for the hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.domain import Priority, new_task_id
from backend.core.paths import Home
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.models.folder.locks import removal_lock
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerState, WorkerStore
from tests.commands.support import invoke, wan22
from tests.support.hub import COMMIT, Answer, StandIn, repository_files, stand_in
from tests.support.server import wait_for

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
    assert listed.count("not installed: ") == 1
    assert "T2V-A14B" in next(line for line in listed.splitlines() if line.startswith("not installed: "))
    every = invoke("models", "list", "--all", home=home).stdout.splitlines()
    rows = [line.split()[0] for line in every if "available" in line or "missing" in line]
    assert [name.startswith("tiny-") for name in rows] == [True] * 3 + [False] * 8, "usable ones first"
    states = json.loads(invoke("models", "list", "--json", home=home).stdout)
    assert [state["status"] for state in states].count("missing") == 8
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
    assert "files are present" in invoke("models", "verify", "T2V-A14B", "--quick", home=home).stdout
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


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The database of `home`, as a server of it has it."""
    Home(tmp_path / "home").create()
    database = Database(f"sqlite:///{Home(tmp_path / 'home').database}")
    database.migrate()
    yield database
    database.close()


def queued(database: Database) -> tuple[TaskStore, str]:
    """Queue a task for T2V-A14B, as a server would."""
    request, notes = resolve_request(MODELS["T2V-A14B"], RequestDraft("a red circle", seed=1))
    tasks = TaskStore(database)
    task = tasks.insert(
        new_task_id(),
        request,
        adjustments=notes,
        priority=Priority.NORMAL,
        max_attempts=3,
        fingerprint=request.digest,
    )
    return tasks, task.id


def test_a_model_that_a_task_needs_or_a_worker_holds_is_not_removed(
    tmp_path: Path, hub: StandIn, database: Database
) -> None:
    home = tmp_path / "home"
    assert invoke("models", "download", "T2V-A14B", home=home).returncode == 0
    tasks, task = queued(database)
    refused = invoke("models", "remove", "T2V-A14B", "--yes", home=home)
    assert refused.returncode == 1
    assert "needed by a task" in refused.stderr
    assert "Cancel the task" in refused.stderr
    tasks.request_cancel(task)
    workers = WorkerStore(database)
    workers.beat("w1", device="cpu", state=WorkerState.IDLE, model="T2V-A14B")
    assert "loaded by a worker" in invoke("models", "remove", "T2V-A14B", "--yes", home=home).stderr
    assert (home / "models" / "T2V-A14B" / VAE).exists()
    workers.remove("w1")
    assert invoke("models", "remove", "T2V-A14B", "--yes", home=home).returncode == 0
    assert not (home / "models" / "T2V-A14B").exists()


def test_a_command_that_removes_waits_for_a_submit_that_has_looked_already(
    tmp_path: Path, hub: StandIn, database: Database
) -> None:
    """The submit of another process has seen the files and writes its task: then the model stays."""
    home = tmp_path / "home"
    assert invoke("models", "download", "T2V-A14B", home=home).returncode == 0
    command = [sys.executable, "-m", "backend.cli", "models", "remove", "T2V-A14B", "--yes"]
    env = os.environ | {"WAN22_HOME": str(home), "COLUMNS": "160"}
    with removal_lock(Home(home), MODELS["T2V-A14B"]):
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = wait_for(lambda: process.poll() is not None or naps(process.pid), what="the command at its database")
        wait_for(lambda: process.poll() is not None or naps(process.pid) > first + 50, what="many tries of the lock")
        assert process.poll() is None
        queued(database)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "needed by a task" in said
    assert (home / "models" / "T2V-A14B" / VAE).exists()


def naps(pid: int) -> int:
    """How often a process that has our database open has waited for something; 0 before that."""
    links = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            links.append(link.readlink().name)
    if "wan22.db" not in links:
        return 0
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("voluntary_")]
    return int(line.split()[1])


def test_errors_are_sentences_with_a_next_step(tmp_path: Path, hub: StandIn) -> None:
    home = tmp_path / "home"
    hub.answers.append(Answer(403, {"X-Error-Code": "GatedRepo"}))
    for arguments, said in (
        (["download", "T2V-A14B"], "HF_TOKEN"),
        (["download", "tiny-t2v-a14b"], "ships with wan22"),
        (["download", "nobody"], "Must be one of"),
        (["verify", "T2V-A14B"], "wan22 models download T2V-A14B"),
        (["remove", "T2V-A14B", "--yes"], "is not installed"),
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


def test_a_model_of_ones_own_is_added_listed_and_taken_out(tmp_path: Path) -> None:
    home, tiny = tmp_path / "home", EMBEDDED_MODELS / "tiny-ti2v-5b"
    options = [
        "--base",
        "tiny-ti2v",
        "--title",
        "Mine",
        "--licence",
        "MIT",
        "--alias",
        "my-own",
        "--default",
        "steps=4",
    ]
    added = invoke("models", "add", "mine", str(tiny), *options, home=home)
    assert added.returncode == 0, added.stderr
    assert "mine is added, with the structure of tiny-ti2v-5b: ready" in added.stdout
    shown = json.loads(invoke("models", "show", "my_own", home=home).stdout)
    assert (shown["title"], shown["licence"], shown["base"]) == ("Mine", "MIT", "tiny-ti2v-5b")
    (line,) = [line for line in invoke("models", "list", home=home).stdout.splitlines() if line.startswith(" mine ")]
    assert "available" in line
    assert "mine at 128x128" in invoke("plan", "mine", home=home).stdout
    doctor = invoke("doctor", home=home).stdout
    assert "ready: 128x128, 17 frames" in doctor
    assert invoke("models", "remove", "mine", "--yes", home=home).returncode == 0
    assert invoke("models", "show", "mine", home=home).returncode == 1
    assert (tiny / "model_index.json").is_file()


def test_what_cannot_be_added_is_refused_in_a_sentence(tmp_path: Path) -> None:
    home, tiny = tmp_path / "home", str(EMBEDDED_MODELS / "tiny-ti2v-5b")
    refused = {
        ("t2v", tiny, "--base", "tiny-ti2v"): "belongs to T2V-A14B",
        ("mine", tiny, "--base", "tiny-t2v"): "It has the structure of tiny-ti2v-5b, not like tiny-t2v-a14b",
        ("mine", tiny, "--base", "sora"): "base must be one of",
        ("mine", tiny, "--base", "tiny-ti2v", "--default", "steps=1000"): "Steps must be between 1 and 100",
        ("mine", tiny, "--base", "tiny-ti2v", "--default", "steps"): "say KEY=VALUE",
        ("mine", tiny, "--base", "tiny-ti2v", "--default", "title=x"): "defaults.title is not a key",
    }
    for arguments, sentence in refused.items():
        done = invoke("models", "add", *arguments, home=home)
        assert done.returncode == 1
        assert sentence in " ".join(done.stderr.split())
    assert not (home / "config.json").exists()


def test_an_entry_that_was_left_out_is_told_and_can_be_taken_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"models": {"mine": {"base": "sora"}}}))
    listed = invoke("models", "list", home=home)
    assert listed.returncode == 0
    told = "config.json, line 1, column 13: `models.mine` is ignored: base must be one of"
    assert f"warning: {told}" in listed.stderr
    doctor = " ".join(invoke("doctor", home=home).stdout.split())
    assert "`models.mine` is ignored: base must be one of" in doctor
    assert invoke("models", "remove", "mine", home=home).returncode == 0
    assert json.loads((home / "config.json").read_text()) == {"models": {}}
    assert invoke("models", "remove", "mine", home=home).returncode == 1
