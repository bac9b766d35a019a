"""Real servers on damaged, lost and unreachable databases."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.store.upkeep.conftest import Owner
from tests.store.upkeep.test_backups import wan22
from tests.store.upkeep.test_opening import PNG
from tests.support.server import START_SECONDS, LiveServer, wait_for

NO_WORKER = {"WAN22_WORKER": "false"}


def health(server: LiveServer) -> dict[str, Any]:
    answer: dict[str, Any] = server.client.get("/api/v1/system/health").json()
    return answer


def test_14_a_server_on_a_damaged_database_restores_it_and_says_so(
    owner: Owner, live_server: Callable[..., LiveServer]
) -> None:
    owner.open()
    kept = owner.work(4)
    owner.close()
    made = wan22(owner.home.root, "db", "backup")
    assert made.returncode == 0, made.stderr
    owner.home.database.write_bytes(PNG)
    checked = wan22(owner.home.root, "db", "check")
    assert checked.returncode == 1
    assert "damaged (it is not an SQLite database)" in checked.stdout
    assert re.search(r"\.db: 0\.\d MB, intact", checked.stdout)
    assert "wan22.db is damaged" in wan22(owner.home.root, "db", "backup").stderr

    server = live_server(owner.home.root, **NO_WORKER)
    shown = {task["id"] for task in server.client.get("/api/v1/queue").json()["tasks"]}
    assert shown == kept
    assert "database.restored" in server.log.read_text()
    (aside,) = owner.set_aside()
    warning = next(one for one in health(server)["system_info"]["warnings"] if "was replaced" in one)
    assert aside in warning
    assert wan22(owner.home.root, "db", "restore", "--yes").returncode == 1, "a server runs"
    server.stop()
    doctor = wan22(owner.home.root, "doctor", "--offline", "--json")
    assert '"subject": "restoration"' in doctor.stdout
    assert aside in doctor.stdout


def test_14_a_server_without_any_copy_refuses_and_names_the_command(owner: Owner) -> None:
    owner.open()
    owner.work(2)
    owner.video()
    owner.close()
    owner.home.database.write_bytes(b"")
    refused = wan22(owner.home.root, "serve", "--port", "0")
    assert refused.returncode == 1
    assert "wan22.db is empty although there are 1 videos in `outputs`" in refused.stderr
    assert "wan22 db restore --new" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert owner.home.database.stat().st_size == 0
    done = wan22(owner.home.root, "db", "restore", "--new", "--yes")
    assert done.returncode == 0, done.stderr
    assert owner.open() is None
    assert owner.ids() == set()


def test_a_database_that_is_taken_away_from_a_server_is_missed(
    owner: Owner, live_server: Callable[..., LiveServer]
) -> None:
    server = live_server(owner.home.root, **NO_WORKER)
    task = server.submit()
    aside = owner.home.root / "elsewhere.db"
    owner.home.database.rename(aside)
    for answer in (
        server.client.post("/api/v1/generation/submit", json={"prompt": "a red circle", "model_type": "tiny-t2v-a14b"}),
        server.client.get("/ready"),
    ):
        assert answer.status_code == 503
        assert "was moved or deleted" in answer.text
    assert not owner.home.database.exists()
    aside.rename(owner.home.database)
    assert server.task(task)["status"] == "pending"
    assert server.submit()


def test_17_a_second_server_on_one_home_is_refused_with_the_first_ones_process(
    owner: Owner, live_server: Callable[..., LiveServer]
) -> None:
    server = live_server(owner.home.root, **NO_WORKER)
    second = wan22(owner.home.root, "serve", "--port", "0")
    assert second.returncode == 1
    assert f"Another server (process {server.pid}, {server.url}) uses" in second.stderr
    server.kill()
    server.client.close()
    third = live_server(owner.home.root, **NO_WORKER)
    assert third.pid != server.pid


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes; mounting it takes an administrator."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_start_on_a_full_or_read_only_disk_names_it(small_disk: Path) -> None:
    home = small_disk / "home"
    home.mkdir()
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    full = wan22(home, "serve", "--port", "0")
    assert full.returncode == 1
    assert "The disk of the database is full (wan22.db)" in full.stderr
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    frozen = wan22(home, "serve", "--port", "0")
    assert frozen.returncode == 1
    assert f"The home folder {home} cannot be written: Read-only file system" in frozen.stderr
    assert "Traceback" not in full.stderr + frozen.stderr


def test_a_server_waits_for_a_postgresql_that_is_not_there_yet(new_postgres: Callable[[], str], tmp_path: Path) -> None:
    """The two are often started together, after a reboot."""
    url = make_url(new_postgres())
    sockets = tmp_path / "sockets"
    late = url.update_query_dict({"host": str(sockets)}).render_as_string(hide_password=False)
    home, log = tmp_path / "home", tmp_path / "log"
    env = os.environ | NO_WORKER | {"WAN22_HOME": str(home), "WAN22_DATABASE_URL": late}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "serve", "--port", "0"], env=env, stdout=file, stderr=file
        )
    try:
        wait_for(lambda: "server.waits_for_database" in log.read_text(), seconds=START_SECONDS, what="the wait")
        assert process.poll() is None
        assert not (home / "server.json").exists()
        sockets.symlink_to(str(url.query["host"]))
        wait_for((home / "server.json").exists, seconds=START_SECONDS, what="the start")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_server_that_waits_for_its_database_ends_on_request(tmp_path: Path) -> None:
    log = tmp_path / "log"
    url = f"postgresql://wan22@/wan22?host={tmp_path}"
    env = os.environ | NO_WORKER | {"WAN22_HOME": str(tmp_path / "home"), "WAN22_DATABASE_URL": url}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "serve", "--port", "0"], env=env, stdout=file, stderr=file
        )
    try:
        wait_for(lambda: "server.waits_for_database" in log.read_text(), seconds=START_SECONDS, what="the wait")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_postgresql_is_backed_up_with_its_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_DATABASE_URL", "postgresql://wan22:secret@localhost/wan22")
    for arguments, tool in ((("backup",), "pg_dump"), (("restore", "--yes"), "pg_restore"), (("check",), "pg_amcheck")):
        refused = wan22(tmp_path / "home", "db", *arguments)
        assert refused.returncode == 1
        assert tool in refused.stderr
        assert "secret" not in refused.stderr
