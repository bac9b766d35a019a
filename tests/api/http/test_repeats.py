"""`Idempotency-Key` on every POST that creates: one thing is made, however often the call arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.catalogue.table import find_model
from backend.core.errors.base import WanError
from backend.core.errors.lookups import IdempotencyInProgress
from backend.store.clients.answers import KEEP_SECONDS, AnswerStore, KeptAnswer
from backend.store.engine import Database
from backend.store.tables import answers
from backend.store.upkeep.retention import Retention, RowLimits
from tests.api.support import GOOD, SUBMIT, Served, assert_error, make_png

INPUTS = "/api/v1/inputs"
RED = {"image": ("a.png", make_png(64, 64), "image/png")}
BLUE = {"image": ("a.png", make_png(64, 64, (0, 0, 200)), "image/png")}
Call = tuple[str, dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repeats") / "home"


@pytest.fixture(scope="module")
def once(home: Path) -> Iterator[Served]:
    served = Served(home)
    yield served
    served.client.__exit__(None, None, None)


def keyed(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def submitting(served: Served) -> Call:
    return SUBMIT, {"json": GOOD}, {"json": GOOD | {"prompt": "a blue ring"}}


def generating(served: Served) -> Call:
    return "/api/v1/generate", {"json": GOOD}, {"json": GOOD | {"steps": 3}}


def submitting_a_form(served: Served) -> Call:
    form = {"model_type": "tiny-i2v-a14b", "prompt": "a red circle"}
    return SUBMIT, {"data": form, "files": RED}, {"data": form, "files": BLUE}


def duplicating(served: Served) -> Call:
    path = f"/api/v1/queue/{served.submit()}/duplicate"
    return path, {"json": {"seed": 5}}, {"json": {"seed": 6}}


def retrying(served: Served) -> Call:
    task_id = served.submit()
    served.services.tasks.request_cancel(task_id)
    return f"/api/v1/queue/{task_id}/retry", {}, {"params": {}, "json": {"another": "body"}}


def storing_an_image(served: Served) -> Call:
    return INPUTS, {"files": RED}, {"files": BLUE}


def decoding_again(served: Served) -> Call:
    task_id = served.submit(keep_latents=True)
    while (task := served.claim()).id != task_id:
        served.services.tasks.fail(task.id, str(task.lease_token), WanError())
    served.complete(task)
    served.services.home.latents_of(task_id).write_bytes(b"latents")
    return f"/api/v1/outputs/{task_id}/redecode", {"json": {"crf": 20}}, {"json": {"crf": 21}}


def making_a_board(_served: Served) -> Call:
    return "/api/v1/boards", {"json": {"name": "rings"}}, {"json": {"name": "circles"}}


def keeping_a_preset(_served: Served) -> Call:
    body = {"name": "few steps", "request": {"steps": 4}}
    return "/api/v1/presets", {"json": body}, {"json": body | {"name": "more steps"}}


CALLS: list[Callable[[Served], Call]] = [
    submitting,
    submitting_a_form,
    generating,
    duplicating,
    retrying,
    storing_an_image,
    decoding_again,
    making_a_board,
    keeping_a_preset,
]


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [body[name] for name in ("task_id", "id") if name in body]


@pytest.mark.parametrize("make", CALLS, ids=lambda make: make.__name__)
def test_a_repeated_call_gets_the_same_ids_and_another_one_with_its_key_is_refused(
    once: Served, make: Callable[[Served], Call]
) -> None:
    path, same, other = make(once)
    before = once.count()
    first = once.client.post(path, **same, headers=keyed(make.__name__))
    created = once.count()
    again = once.client.post(path, **same, headers=keyed(make.__name__))
    assert ids(again) == ids(first) != []
    assert_error(once.client.post(path, **other, headers=keyed(make.__name__)), 409, "idempotency_conflict")
    assert once.count() == created <= before + 1
    assert_error(once.client.post(path, **same, headers=keyed("two words")), 422, "invalid_request")


def test_a_refused_call_leaves_its_key_free(once: Served) -> None:
    wrong = {"image": ("a.png", b"not an image", "image/png")}
    assert_error(once.client.post(INPUTS, files=wrong, headers=keyed("mended")), 422, "invalid_image")
    assert once.client.post(INPUTS, files=RED, headers=keyed("mended")).status_code == 200


def test_equal_keys_of_two_clients_do_not_meet(tmp_path: Path) -> None:
    served, red, blue = Served(tmp_path / "home"), {"files": RED}, {"files": BLUE}
    try:
        clients = [bearer(served, name) | keyed("mine") for name in ("anna", "bert")]
        tasks = [ids(served.client.post(SUBMIT, json=GOOD, headers=one)) for one in (*clients, *clients)]
        assert (tasks[:2], len({str(one) for one in tasks})) == (tasks[2:], 2)
        images = [ids(served.client.post(INPUTS, **red, headers=one)) for one in clients]
        assert images[0] == images[1]  # equal images are stored once
        for one in clients:
            assert_error(served.client.post(INPUTS, **blue, headers=one), 409, "idempotency_conflict")
        other = bearer(served, "cleo") | keyed("mine")
        answer = served.client.post(INPUTS, **blue, headers=other)
        assert ids(answer) != images[0]
        assert "idempotency-replayed" not in answer.headers
    finally:
        served.client.__exit__(None, None, None)


def bearer(served: Served, name: str) -> dict[str, str]:
    """Make an API key and return the header that brings it."""
    drawn = draw_key()
    served.services.key_store.create(drawn, name, (Scope.GENERATE,), KeyLimits(), None)
    served.services.keys.refresh()
    return {"Authorization": f"Bearer {drawn.text}"}


def test_a_repeated_submit_needs_nothing_that_has_gone_since(once: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    first = once.client.post(SUBMIT, json=GOOD | {"variations": 2}, headers=keyed("gone")).json()

    def unusable(*_: object, **__: object) -> None:
        raise AssertionError("a repeated call chooses no model again")

    monkeypatch.setattr(type(once.services.models), "state", unusable)
    monkeypatch.setattr(type(once.services.generation), "_prepared", unusable)
    again = once.client.post(SUBMIT, json=GOOD | {"variations": 2}, headers=keyed("gone")).json()
    assert again["task_ids"] == first["task_ids"]
    assert again["detected_model_type"] == find_model(GOOD["model_type"]).id


def test_calls_at_the_same_time_make_one_task(once: Served) -> None:
    start, found = threading.Barrier(4), []

    def send() -> None:
        start.wait(30)
        found.extend(ids(once.client.post(SUBMIT, json=GOOD, headers=keyed("together"))))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert (len(found), len(set(found))) == (4, 1)


def test_a_key_in_flight_is_said_and_its_server_frees_it_when_it_starts_again(home: Path, once: Served) -> None:
    store = once.services.answers
    token = store.begin(f"POST {INPUTS}", "in-flight")
    assert isinstance(token, str)
    body = assert_error(once.client.post(INPUTS, files=RED, headers=keyed("in-flight")), 409, "idempotency_in_progress")
    assert body["actions"] == [{"action": "retry", "after_seconds": 2}]
    stored = once.client.post(INPUTS, files=RED, headers=keyed("before")).json()
    once.client.__exit__(None, None, None)
    once.__init__(home)  # type: ignore[misc]
    assert once.client.post(INPUTS, files=RED, headers=keyed("in-flight")).status_code == 200
    again = once.client.post(INPUTS, files=RED, headers=keyed("before"))
    assert (again.json(), again.headers["idempotency-replayed"]) == (stored, "true")
    assert_error(once.client.post(INPUTS, files=BLUE, headers=keyed("before")), 409, "idempotency_conflict")


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_answers_expire(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    database = Database(tmp_path / "wan22.db" if place == "sqlite" else request.getfixturevalue("new_postgres")())
    database.migrate()
    store, other = AnswerStore(database, "this home"), AnswerStore(database, "another home")
    token = store.begin("POST /x", "k")
    assert isinstance(token, str)
    with pytest.raises(IdempotencyInProgress):
        other.begin("POST /x", "k")
    other.forget_unfinished()
    with pytest.raises(IdempotencyInProgress):
        other.begin("POST /x", "k")
    answer = KeptAnswer("print", 200, "{}")
    store.keep(token, answer)
    assert other.begin("POST /x", "k") == answer
    assert isinstance(other.begin("POST /y", "k"), str)
    with database.begin() as connection:
        connection.execute(update(answers).values(created_at=answers.c.created_at - KEEP_SECONDS - 1))
    Retention(database).sweep(RowLimits(0, 0, 0, 0))
    assert isinstance(store.begin("POST /x", "k"), str)
    database.close()
