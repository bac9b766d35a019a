"""`wan22 db`, and what doctor and cleanup say of the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.commands.doctor import examine
from backend.core.paths import Home
from backend.core.settings import load_settings
from backend.services.planning.self_test import EngineAnswer
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.commands.support import invoke
from tests.store.samples import submit


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    database = Database(home.database)
    database.migrate()
    yield database
    database.close()


def findings(home: Home) -> dict[str, tuple[str, str]]:
    """Grade and text of what doctor finds, by subject."""
    found = examine(load_settings(home=home.root), offline=True, ask=lambda *_: EngineAnswer())
    return {one.subject: (one.grade, one.text) for one in found}


def test_a_copy_is_made_checked_and_restored(home: Home, database: Database) -> None:
    first = submit(TaskStore(database))
    made = json.loads(invoke("db", "backup", "--json", home=home.root).stdout)
    assert Path(made["backup"]).parent == home.backups
    assert made["bytes"] == Path(made["backup"]).stat().st_size
    elsewhere = home.root / "elsewhere.db"
    assert invoke("db", "backup", "--to", str(elsewhere), home=home.root).returncode == 0
    second = submit(TaskStore(database))
    checked = json.loads(invoke("db", "check", "--json", home=home.root).stdout)
    assert (checked["ok"], checked["condition"], checked["unreadable_rows"]) == (True, "intact", [])
    assert [one["condition"] for one in checked["backups"]] == ["intact"]
    before = elsewhere.read_bytes()
    assert invoke("db", "check", str(elsewhere), home=home.root).returncode == 0
    assert elsewhere.read_bytes() == before
    database.close()

    done = json.loads(invoke("db", "restore", str(elsewhere), "--yes", "--json", home=home.root).stdout)
    assert done["from"] == "elsewhere.db"
    restored, old = Database(home.database), Database(home.root / done["set_aside"])
    assert {task.id for task in TaskStore(restored).list()} == {first.id}
    assert {task.id for task in TaskStore(old).list()} == {first.id, second.id}
    restored.close()
    old.close()


def test_nothing_is_replaced_without_consent_or_without_a_copy(
    home: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = submit(TaskStore(database))
    missing = invoke("db", "restore", "--yes", home=home.root)
    assert (missing.returncode, "no intact copy in `backups`" in missing.stderr) == (1, True)
    assert invoke("db", "backup", home=home.root).returncode == 0
    monkeypatch.setattr("typer.confirm", _no)
    refused = invoke("db", "restore", home=home.root)
    assert refused.returncode == 1
    assert "Nothing was changed" in refused.stderr
    assert invoke("db", "restore", "file.db", "--new", home=home.root).returncode == 1
    assert TaskStore(database).get(task.id) == task


def _no(*_question: object, **_options: object) -> None:
    import typer

    raise typer.Abort


def test_a_home_without_a_database_is_not_given_one_by_a_look(home: Home) -> None:
    assert invoke("db", "check", home=home.root).returncode == 1
    assert "does not exist" in invoke("db", "backup", home=home.root).stderr
    assert findings(home)["database"] == ("ok", "not made yet: the first start of the server makes it")
    assert not home.database.exists()


def test_doctor_and_cleanup_name_the_size_the_copies_and_what_is_old(home: Home, database: Database) -> None:
    submit(TaskStore(database))
    assert findings(home)["backups"] == ("note", "none yet")
    invoke("db", "backup", home=home.root)
    found = findings(home)
    assert found["backups"][0] == "ok"
    assert found["backups"][1].startswith("1, the newest of ")
    assert found["database"][0] == "ok"
    assert "old: 0 progress events, 0 removed tasks without a video, 0 silent workers" in found["database"][1]
    assert "database: 0." in invoke("models", "cleanup", home=home.root).stdout
    answer = json.loads(invoke("models", "cleanup", "--json", home=home.root).stdout)
    assert answer["database"]["progress_events"] == 0
    database.close()
    home.database.write_bytes(b"not a database at all")
    grade, sentence = findings(home)["database"]
    assert grade == "bad"
    assert "wan22.db is damaged (it is not an SQLite database)" in sentence
    assert "damaged" in invoke("models", "cleanup", home=home.root).stderr
