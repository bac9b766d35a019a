"""Lists, filters, searches and marks of finished videos, on both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from backend.core.access.caller import OPERATOR, Caller, Scope, acting_as
from backend.core.domain import EventType, TaskStatus
from backend.core.errors.lookups import BoardExists, BoardNotFound, OutputNotFound
from backend.core.errors.requests import InvalidRequest
from backend.core.paths import Home
from backend.store.access.totals import recount
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.filters import GalleryFilter, Sort
from backend.store.gallery.listing import GalleryListing
from backend.store.gallery.marks import MAX_TAGS, GalleryMarks, Marks
from backend.store.gallery.outputs import OutputStore
from backend.store.schema import MIGRATIONS
from backend.store.tasks import TaskStore
from tests.store.samples import claimed, output_of, submit

EVERYTHING = GalleryFilter()
PROMPTS = ("A red circle, moving right", "a blue ring and Übergrößen", "一只红色的猫在跑", "red_panda 100% done")


@pytest.fixture
def ids(store: TaskStore) -> list[str]:
    """Videos of all prompts, the newest last; each one is larger and longer than the one before it."""
    return [finish(store, prompt, number) for number, prompt in enumerate(PROMPTS)]


def finish(store: TaskStore, prompt: str, number: int = 0, *, mock: str | None = None, model: str | None = None) -> str:
    task = submit(store, prompt)
    _, token = claimed(store)
    output = output_of(task.id)
    store.complete(
        task.id,
        token,
        replace(
            output,
            size_bytes=output.size_bytes + number,
            num_frames=17 + 4 * number,
            mock=mock,
            model=model,
            placeholder=bytes([number]) * 20,
        ),
    )
    return task.id


def listed(database: Database, which: GalleryFilter = EVERYTHING, sort: Sort = Sort.NEWEST) -> list[str]:
    """Return the ids of a list, which must be the same in every form."""
    gallery = GalleryListing(database)
    packed = gallery.packed_ids(which, sort)
    found = [str(UUID(bytes=packed[start : start + 16])) for start in range(0, len(packed), 16)]
    assert gallery.ids(which, sort, limit=100) == found
    assert [item.output.task_id for item in gallery.page(which, sort, limit=100)] == found
    assert gallery.totals(which)[0] == len(found)
    return found


def test_lists_and_orders(database: Database, ids: list[str]) -> None:
    assert listed(database) == ids[::-1]
    assert listed(database, sort=Sort.OLDEST) == ids
    assert listed(database, sort=Sort.LARGEST) == listed(database, sort=Sort.LONGEST) == ids[::-1]
    gallery = GalleryListing(database)
    assert [item.output.task_id for item in gallery.page(limit=2, offset=1)] == [ids[2], ids[1]]
    assert gallery.totals()[1] == sum(1234 + number for number in range(4))
    assert len(gallery.packed_ids(GalleryFilter(), limit=3)) == 48
    first, unknown = gallery.of([ids[0], "nobody"]), gallery.of(["nobody"])
    assert (first[0].output.task_id, first[0].placeholder, unknown) == (ids[0], bytes(20), [])


def test_days_count_what_a_list_shows(database: Database, ids: list[str]) -> None:
    # A quarter of an hour before midnight, UTC, each on the day before the next one.
    for number, one in enumerate(ids):
        made = datetime(2026, 2, 26 + min(number, 2), 23, 45, tzinfo=UTC).timestamp()
        with database.begin() as connection:
            connection.execute(text("UPDATE gallery SET created_at = :at WHERE task_id = :id"), {"at": made, "id": one})
    gallery = GalleryListing(database)
    assert gallery.days() == [(date(2026, 2, 28), 2), (date(2026, 2, 27), 1), (date(2026, 2, 26), 1)]
    assert gallery.days(offset=timedelta(minutes=15))[0] == (date(2026, 3, 1), 2)
    assert gallery.days(GalleryFilter(search="red"), timedelta(hours=-5)) == [
        (date(2026, 2, 28), 1),
        (date(2026, 2, 26), 1),
    ]
    assert gallery.days(GalleryFilter(trash=True)) == []


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("red", [3, 0]),
        ("RED circ", [0]),
        ("red ring", []),
        ("Übergr", [1]),
        ("红色", [2]),
        ("猫 一只", [2]),
        ("100%", [3]),
        ('"', [3, 2, 1, 0]),
        ("' OR 1=1 --", []),
        ("NEAR(red blue)", []),
        ("a AND b*", [1]),
        ("panda", [3]),
    ],
)
def test_a_search_finds_words_by_their_beginnings(
    database: Database, ids: list[str], search: str, found: Sequence[int]
) -> None:
    assert listed(database, GalleryFilter(search=search)) == [ids[index] for index in found]


def test_filters(database: Database, store: TaskStore, ids: list[str]) -> None:
    mock = finish(store, "a mock", mock="no model is here")
    other = finish(store, "another model", model="t2v-a14b")
    assert listed(database, GalleryFilter(mock=True)) == [mock]
    assert listed(database, GalleryFilter(models=("t2v-a14b",))) == [other]
    assert listed(database, GalleryFilter(models=())) == []
    assert listed(database, GalleryFilter(imported=True)) == []
    made = GalleryListing(database).of([ids[2]])[0].output.created_at
    assert made is not None
    assert listed(database, GalleryFilter(after=made - timedelta(microseconds=1), mock=False)) == [
        other,
        ids[3],
        ids[2],
    ]
    assert listed(database, GalleryFilter(before=made + timedelta(microseconds=1))) == ids[2::-1]


def test_marks_are_kept_and_told(database: Database, store: TaskStore, ids: list[str]) -> None:
    marks, gallery = GalleryMarks(database), GalleryListing(database)
    board = marks.add_board("Rings")
    change = Marks(favourite=True, board=board.id, add_tags=("  Night  City ", "night city", "wip"))
    assert sorted(marks.mark([*ids[:2], "nobody"], change)) == sorted(ids[:2])
    (item,) = gallery.of([ids[1]])
    assert (item.favourite, item.board, item.tags) == (True, board.id, ("night city", "wip"))
    assert listed(database, GalleryFilter(favourite=True)) == ids[1::-1]
    assert listed(database, GalleryFilter(favourite=False, board="")) == ids[:1:-1]
    assert listed(database, GalleryFilter(board=board.id, tags=("wip", "night city"))) == ids[1::-1]
    assert gallery.tags() == [("night city", 2), ("wip", 2)]
    assert [(one.name, one.videos) for one in marks.boards()] == [("Rings", 2)]
    marks.mark([ids[0]], Marks(favourite=False, remove_tags=("WIP",), board=""))
    marks.mark([ids[1]], Marks(tags=("one",)))
    assert [(one.favourite, one.tags) for one in gallery.of(ids[:2])] == [(False, ("night city",)), (True, ("one",))]
    (event,) = [one for one in EventLog(database).of_task(ids[0]) if one.data.get("favourite") is False]
    assert (event.type, event.data["change"], event.data["board_id"]) == (EventType.OUTPUT_CHANGED, "marked", None)
    marks.delete_board(board.id)
    assert (gallery.of([ids[1]])[0].board, marks.boards()) == (None, [])


def test_what_cannot_be_marked_changes_nothing(database: Database, ids: list[str]) -> None:
    marks = GalleryMarks(database)
    marks.add_board("one")
    two = marks.add_board("two")
    with pytest.raises(BoardExists):
        marks.add_board("one")
    with pytest.raises(BoardExists):
        marks.rename_board(two.id, "one")
    assert marks.rename_board(two.id, "two").name == "two"
    with pytest.raises(BoardNotFound):
        marks.mark(ids, Marks(favourite=True, board="nowhere"))
    for tags in (("",), ("a\u202eb",), ("x" * 65,), tuple(map(str, range(MAX_TAGS + 1)))):
        with pytest.raises(InvalidRequest):
            marks.mark(ids, Marks(favourite=True, add_tags=tags))
    assert listed(database, GalleryFilter(favourite=True)) == []


def test_the_trash_gives_back_what_is_not_deleted(database: Database, home: Home, ids: list[str]) -> None:
    marks, outputs = GalleryMarks(database), OutputStore(database, home)
    for task_id in ids:
        home.video_of(task_id).write_bytes(b"video")
    assert sorted(marks.trash(ids[:3])) == sorted(ids[:3])
    assert marks.trash(ids[:1]) == []
    assert listed(database) == [ids[3]] == [output.task_id for output in outputs.list()]
    assert listed(database, GalleryFilter(trash=True)) == ids[2::-1]
    assert (outputs.find(ids[0]), outputs.ids()) == (None, set(ids))
    assert marks.mark([ids[0]], Marks(favourite=True)) == []
    assert marks.restore([ids[0], ids[3]]) == [ids[0]]
    assert listed(database) == [ids[3], ids[0]]
    assert (marks.in_trash(1.0), sorted(marks.in_trash())) == ([], sorted(ids[1:3]))
    for task_id in marks.in_trash():
        outputs.delete(task_id)
    with pytest.raises(OutputNotFound):
        outputs.delete(ids[1])
    assert listed(database, GalleryFilter(trash=True)) == listed(database, GalleryFilter(search="ring")) == []
    assert sorted(path.stem for path in home.outputs.iterdir()) == sorted([ids[0], ids[3]])
    told = [one.data["change"] for one in EventLog(database).of_task(ids[1]) if one.type is EventType.OUTPUT_CHANGED]
    assert told == ["trashed", "deleted"]


_PURGE = """
import sys
from pathlib import Path
from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
database, home, task_id = sys.argv[1:]
OutputStore(Database(database), Home(Path(home))).delete(task_id, trashed_only=True)
"""


def test_a_deletion_that_is_killed_is_completed_and_takes_nothing_else(
    database: Database, database_url: str, home: Home, ids: list[str]
) -> None:
    marks, outputs = GalleryMarks(database), OutputStore(database, home)
    for task_id in ids:
        home.video_of(task_id).write_bytes(bytes(output_of(task_id).size_bytes))
    marks.trash(ids[:2])
    killed = subprocess.run(
        [sys.executable, "-c", _PURGE, database_url, str(home.root), ids[0]],
        env=os.environ | {"WAN22_FAULTS": "delete.files_gone=kill"},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not home.video_of(ids[0]).exists()
    # Half of it is left: it is shown and restored no more, and the next round takes the rest.
    assert marks.restore([ids[0]]) == []
    assert listed(database, GalleryFilter(trash=True)) == [ids[1]]
    assert GalleryListing(database).of([ids[0]]) == []
    assert marks.in_trash(7.0) == [ids[0]]
    # What was restored in the meantime stays.
    assert marks.restore([ids[1]]) == [ids[1]]
    with pytest.raises(OutputNotFound):
        outputs.delete(ids[1], trashed_only=True)
    outputs.delete(ids[0], trashed_only=True)
    assert outputs.ids() == set(ids[1:])
    assert {path.stem for path in home.outputs.iterdir()} == set(ids[1:])


def test_a_damaged_index_of_words_is_rebuilt(tmp_path: Path) -> None:
    database = Database(tmp_path / "wan22.db")
    database.migrate()
    store = TaskStore(database)
    ids = [finish(store, f"{prompt} {number}", number) for number, prompt in enumerate(PROMPTS)]
    assert not database.repair_search()
    with database.begin() as connection:
        connection.execute(text("UPDATE gallery_search_data SET block = zeroblob(length(block)) WHERE id > 10"))
    assert database.repair_search()
    assert not database.repair_search()
    assert listed(database, GalleryFilter(search="circ")) == ids[:1]
    assert finish(store, "a blue square") in listed(database, GalleryFilter(search="square"))
    database.close()


def test_an_older_gallery_is_listed_and_searched(database_url: str) -> None:
    database, config = Database(database_url), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
    ids = ["9fb31bd6-8ddb-4ed6-9cf2-90f1e9e1e5d1", "9fb31bd6-8ddb-4ed6-9cf2-90f1e9e1e5d2"]
    with database.begin() as connection:
        for number, (task_id, request) in enumerate(zip(ids, ('{"prompt": "a red \\u5706"}', "{}"), strict=True)):
            connection.execute(
                text(
                    "INSERT INTO tasks (id, status, model, request, adjustments, priority, attempt, max_attempts,"
                    " fingerprint, created_at, last_event, place) "
                    "VALUES (:id, 'completed', 'tiny', :request, '[]', 0, 1, 1, '', 0, 0, 1)"
                ),
                {"id": task_id, "request": request},
            )
            connection.execute(
                text(
                    "INSERT INTO outputs (task_id, filename, size_bytes, sha256, width, height, num_frames, fps,"
                    " generation_seconds, warnings, metadata, created_at, model) "
                    "VALUES (:id, 'x.mp4', 5, '', 8, 8, 16, 8, 1, '[]', '{}', :at, :model)"
                ),
                {"id": task_id, "at": number, "model": "t2v" if number else None},
            )
    database.migrate()
    assert listed(database) == ids[::-1]
    assert listed(database, GalleryFilter(search="red")) == listed(database, GalleryFilter(mock=True)) == ids[:1]
    assert listed(database, GalleryFilter(models=("t2v",))) == ids[1:]
    assert GalleryListing(database).totals() == (2, 10)
    assert TaskStore(database).counts()[TaskStatus.COMPLETED] == 2
    database.close()


def test_totals_follow_every_change_and_every_owner(database: Database, home: Home, store: TaskStore) -> None:
    listing, outputs, marks = GalleryListing(database), OutputStore(database, home), GalleryMarks(database)
    keys = [Caller(key_id=name, name=name, scopes=frozenset({Scope.GENERATE})) for name in ("one", "two")]
    ids = []
    for caller in (OPERATOR, *keys, keys[0]):
        with acting_as(caller):
            ids.append(finish(store, "a ring", len(ids)))

    def totals() -> list[tuple[int, int]]:
        """Return what each sees: the operator everything, a key its own."""
        found = []
        for caller in (OPERATOR, *keys):
            with acting_as(caller):
                # A filter that excludes nothing is counted, row by row.
                assert listing.totals() == listing.totals(GalleryFilter(after=datetime(1970, 1, 1, tzinfo=UTC)))
                assert store.counts()[TaskStatus.COMPLETED] == listing.totals()[0]
                found.append(listing.totals())
        return [count for count, _ in found]

    assert totals() == [4, 2, 1]
    marks.trash([ids[1]])
    store.delete(ids[1])
    assert totals() == [3, 1, 1]
    outputs.delete(ids[2])
    store.delete(ids[2])
    assert totals() == [2, 1, 0]
    assert not recount(database)


def test_wrong_totals_are_noticed_and_counted_anew(database: Database, store: TaskStore) -> None:
    finish(store, "a ring", 1)
    before = store.counts(), GalleryListing(database).totals()
    with database.begin() as connection:
        connection.execute(text("UPDATE task_totals SET tasks = 7"))
        connection.execute(text("DELETE FROM gallery_totals"))
    assert (store.counts(), GalleryListing(database).totals()) != before
    assert recount(database)
    assert (store.counts(), GalleryListing(database).totals()) == before
    assert not recount(database)
