"""Live messages are about what belongs to the client's key, over either transport, now and in a replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from backend.api.live import replay
from backend.core.access.caller import Scope
from backend.store.upkeep.retention import Retention, RowLimits
from tests.api.http.test_keys import make, revoke
from tests.api.live.support import Server, read
from tests.api.live.test_stream import streaming
from tests.api.support import GOOD, SUBMIT

EVERYTHING = "topics=generation_progress,queue_updates,alerts,download_progress,fallback_notifications"

PAGE = 4  # events


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("owners") / "home")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def bearers(server: Server) -> dict[str, dict[str, str]]:
    scopes = {"anna": Scope.GENERATE, "bert": Scope.GENERATE, "boss": Scope.ADMIN}
    return {name: make(server, name, scope) for name, scope in scopes.items()}


@pytest.fixture(scope="module")
def ids(server: Server, bearers: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """The tasks of each, done by turns, so that every page of the log has some of both."""
    made: dict[str, set[str]] = {"anna": set(), "bert": set()}
    for name in ("anna", "bert", "anna", "bert", "bert"):
        answer = server.client.post(SUBMIT, json=GOOD, headers=bearers[name])
        task_id = answer.json()["task_id"]
        made[name].add(task_id)
        if len(made["bert"]) < 3:  # the last one waits
            task = server.claim()
            server.report(task, 0.5, step=2)
            server.complete(task)
    return made | {"boss": made["anna"] | made["bert"]}


def _named(messages: list[dict[str, Any]]) -> set[str]:
    """Return the tasks that messages are about, whichever field names them."""
    return {message["data"]["task_id"] for message in messages if "task_id" in message["data"]}


async def _replayed(server: Server, bearer: dict[str, str], *, later: bool = False) -> list[dict[str, Any]]:
    """Return what a client is sent that asks for everything at once, or `later` by a message."""
    seen: list[dict[str, Any]] = []
    query = "" if later else f"?{EVERYTHING}&since=0"
    async with server.socket(query, additional_headers=bearer) as client:
        if later:
            topics = EVERYTHING.partition("=")[2].split(",")
            await client.send(json.dumps({"type": "subscribe", "data": {"topics": topics, "since": 0}}))
        while not seen or seen[-1]["type"] != "replay_complete":
            seen.append(read(await asyncio.wait_for(client.recv(), 60)))
    return seen


@pytest.mark.parametrize("name", ["bert", "anna", "boss"])
@pytest.mark.parametrize("later", [False, True])
def test_a_replay_has_the_own_tasks_alone(
    server: Server, bearers: dict[str, dict[str, str]], ids: dict[str, set[str]], name: str, later: bool
) -> None:
    seen = asyncio.run(_replayed(server, bearers[name], later=later))
    assert _named(seen) == ids[name]
    others = ids["boss"] - ids[name]
    assert [one for one in seen if any(task_id in json.dumps(one) for task_id in others)] == []
    (numbers,) = [message["data"] for message in seen if message["type"] == "queue_update"]
    assert numbers["completed_tasks"] == len(ids[name]) - (name != "anna")
    assert numbers["pending_tasks"] == (name != "anna")


def test_those_who_share_a_page_do_not_share_what_is_on_it(
    server: Server, bearers: dict[str, dict[str, str]], ids: dict[str, set[str]]
) -> None:
    async def crowd() -> list[list[dict[str, Any]]]:
        return list(await asyncio.gather(*(_replayed(server, bearers[name]) for name in ("anna", "bert", "boss") * 5)))

    for number, seen in enumerate(asyncio.run(crowd())):
        assert _named(seen) == ids[("anna", "bert", "boss")[number % 3]]


def test_a_stream_has_the_own_tasks_alone(
    server: Server, bearers: dict[str, dict[str, str]], ids: dict[str, set[str]]
) -> None:
    with streaming(server, f"?{EVERYTHING}&since=0", **bearers["anna"]) as stream:
        assert _named(stream.until("replay_complete")) == ids["anna"]
        # Live, too: what belongs to Bert moves the number on, and nothing else.
        server.client.post(SUBMIT, json=GOOD, headers=bearers["bert"])
        mine = server.client.post(SUBMIT, json=GOOD, headers=bearers["anna"]).json()["task_id"]
        assert _named(stream.until("task_update")) == {mine}
    with streaming(server, f"?{EVERYTHING}", **{"Last-Event-ID": "0"}, **bearers["bert"]) as stream:
        assert _named(stream.until("replay_complete")).isdisjoint(ids["anna"] | {mine})


def test_a_revoked_key_loses_its_stream(server: Server) -> None:
    bearer = make(server, "guest", Scope.READ)
    with streaming(server, "?topics=alerts", **bearer) as stream:
        stream.until("subscription_response")
        began = time.monotonic()
        revoke(server, "guest")
        assert [line for line in stream.rest() if line.startswith("event: task")] == []
        assert time.monotonic() - began < 5.0
    assert server.client.get("/api/v1/events", headers=bearer).status_code == 401


def test_a_hundred_replays_from_the_first_event_read_the_log_once(
    server: Server, bearers: dict[str, dict[str, str]], ids: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", PAGE)
    assert ids
    pages = server.services.events.after(0)[-1].id // PAGE + 1
    reads: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_: object) -> None:
        if "FROM events" in statement and "LIMIT" in statement and PAGE in parameters:
            reads.append(statement)

    engine = server.services.tasks._database._engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)

    async def crowd() -> None:
        names = ("anna", "bert") * 50
        began = asyncio.gather(*(_replayed(server, bearers[name]) for name in names))
        # Whoever else asks for something in between is answered.
        answer = await asyncio.to_thread(server.client.get, "/api/v1/queue", headers=bearers["boss"])
        assert answer.status_code == 200
        await began

    try:
        asyncio.run(crowd())
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
    assert pages >= 4
    assert pages <= len(reads) <= 3 * pages


def test_what_was_deleted_of_others_is_no_gap(tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    try:
        bearers = {name: make(server, name, Scope.GENERATE) for name in ("anna", "bert")}
        server.client.post(SUBMIT, json=GOOD, headers=bearers["anna"])
        task = server.claim()
        server.report(task, 0.5, step=2)
        aged = RowLimits(progress_days=1e-9, hidden_days=0, workers_hours=0, database_mb=0)
        # Anna's task still runs, so that the progress of Bert's alone is old.
        server.client.post(SUBMIT, json=GOOD, headers=bearers["bert"])
        ended = server.claim()
        server.report(ended, 0.5, step=2)
        server.complete(ended)
        assert Retention(server.services.tasks._database).sweep(aged).progress_events == 1
        kinds = {name: {one["type"] for one in asyncio.run(_replayed(server, bearers[name]))} for name in bearers}
        assert "replay_gap" not in kinds["anna"]
        assert "replay_gap" in kinds["bert"]
    finally:
        server.stop()
