"""Who comes back gets what it missed: once, in order, as far back as the log goes, and is told where it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import websockets
from sqlalchemy import text
from starlette.testclient import WebSocketDenialResponse

from backend.api.live import connection, manager, replay
from backend.core.domain import EventType, Progress, Stage, Task
from backend.store.upkeep.retention import Retention, RowLimits
from tests.api.live.support import Server, read
from tests.api.live.test_websocket import PROGRESS, listening
from tests.api.support import SOCKET, Served, assert_error

#: Messages that are about an event of the log, as opposed to answers and the state of now.
OF_EVENTS: Final = {
    "task_update",
    PROGRESS,
    "detailed_generation_progress",
    "generation_stage",
    "model_loading_progress",
}
EVERYTHING: Final = f"topics={PROGRESS},alerts,fallback_notifications,download_progress"


def of_events(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in messages if message["type"] in OF_EVENTS]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.stop()


def test_a_query_is_enough_to_miss_nothing_in_one_order(served: Served) -> None:
    with listening(served, f"{SOCKET}?{EVERYTHING}") as whole:
        whole.until("subscription_response", topic="download_progress")
        served.complete_one()
        middle = whole.until("task_update", status="completed")["event_id"]
        task_ids = [served.submit(), served.submit()]
        served.report(served.claim(), 0.5, step=2)
        served.complete(served.claim())
        whole.until(PROGRESS, status="completed", task_id=task_ids[1])
        whole.settle()
        for since in (0, middle):
            with listening(served, f"{SOCKET}?{EVERYTHING}&since={since}") as back:
                assert back.seen[0]["event_id"] == since
                back.until("replay_complete", since=since)
                expected = [m for m in of_events(whole.seen) if m["event_id"] > since]
                assert of_events(back.seen) == expected
        # By a message, too, in either spelling.
        with listening(served) as back:
            text = {"action": "subscribe", "topics": [PROGRESS, "queue_updates"], "since": middle}
            back.session.send_json(text)
            back.until("replay_complete")
            assert of_events(back.seen) == [m for m in of_events(whole.seen) if m["event_id"] > middle]


def test_flat_subscriptions_are_understood(served: Served) -> None:
    with listening(served) as listener:
        for form in ({"type": "subscribe"}, {"action": "subscribe"}):
            listener.session.send_json(form | {"topic": "queue_updates"})
            assert listener.until("subscription_response")["data"]["topic"] == "queue_updates"
            listener.session.send_json({"type": "unsubscribe", "topic": "queue_updates"})
            listener.until("unsubscription_response")
        listener.session.send_json({"action": "ping", "timestamp": 7})
        assert listener.until("pong")["data"]["timestamp"] == 7


def test_the_last_message_of_an_event_is_the_one_to_continue_after(served: Served) -> None:
    with listening(served, f"{SOCKET}?topics={PROGRESS}") as listener:
        listener.until("subscription_response")
        served.submit()
        served.report(served.claim(), 0.5, step=2)
        listener.until("generation_stage", stage="generating")
        groups: dict[int, list[bool]] = {}
        for message in of_events(listener.seen):
            groups.setdefault(message["event_id"], []).append(message.get("more", False))
        assert all(more == [True] * (len(more) - 1) + [False] for more in groups.values())
        assert max(len(more) for more in groups.values()) == 3


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=99999999999999999999", "topics=secrets", "foo=1"])
def test_a_query_that_means_nothing_is_refused(served: Served, query: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, served.client.websocket_connect(f"{SOCKET}?{query}"):
        pass
    assert refused.value.status_code == 422
    if not query.startswith("foo"):
        assert_error(served.client.get(f"/api/v1/events?{query}"), 422, "invalid_request")


def test_a_client_is_told_what_is_gone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.submit()
    task = served.claim()
    for step in range(1, 4):
        served.report(task, step / 4, step=step)
    served.complete(task)
    last = served.services.events.after(0)[-1].id
    with listening(served, f"{SOCKET}?topics={PROGRESS}") as listener:
        listener.settle()
        # The janitor deletes the progress of tasks that ended days ago.
        progress = [event.id for event in served.services.events.after(0) if event.type is EventType.PROGRESS]
        aged = RowLimits(progress_days=1e-9, hidden_days=0, workers_hours=0, database_mb=0)
        assert Retention(served.services.tasks._database).sweep(aged).progress_events == len(progress) == 3
        with listening(served, f"{SOCKET}?topics={PROGRESS}&since={progress[-1]}") as back:
            back.until("replay_complete")
            assert "replay_gap" not in [message["type"] for message in back.seen]
        with listening(served, f"{SOCKET}?topics={PROGRESS}&since=0") as back:
            gap = back.until("replay_gap")["data"]
            assert (gap["reason"], gap["since"], gap["oldest_event"]) == ("removed", 0, progress[-1])
            back.until("replay_complete")
            assert [m["status"] for m in back.seen if m["type"] == "task_update"] == [
                "pending",
                "processing",
                "completed",
            ]
    with listening(served, f"{SOCKET}?topics={PROGRESS}&since={last + 10}") as back:
        assert back.until("replay_gap")["data"]["reason"] == "unknown_event"
        assert back.until("replay_complete")["event_id"] == last
    monkeypatch.setattr(manager, "MAX_REPLAY", 2)
    with listening(served) as witness:
        waiting = served.submit()
        witness.until("task_update", task_id=waiting)
    with listening(served, f"{SOCKET}?topics={PROGRESS}&since=0") as back:
        gap = back.until("replay_gap")["data"]
        assert gap["reason"] == "too_far_back"
        assert gap["oldest_event"] >= last - 2
        assert back.until(PROGRESS)["data"].items() >= {"snapshot": True, "task_id": waiting}.items()


def test_numbers_that_no_event_has_are_no_gap(
    serve: Callable[..., Served], new_postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL does not give the number of an event again whose transaction was rolled back."""
    monkeypatch.setattr(replay, "PAGE", 3)
    served = serve(database_url=new_postgres())
    with listening(served, f"{SOCKET}?topics={PROGRESS}") as whole:
        whole.until("subscription_response")
        for _ in range(3):
            task_id = served.complete_one()
            with served.services.tasks._database.begin() as database:  # as a transaction that is rolled back
                database.execute(text("SELECT nextval('events_id_seq') FROM generate_series(1, 4)"))
            whole.until(PROGRESS, status="completed", task_id=task_id)
        whole.settle()
        for since in range(whole.seen[-1]["event_id"]):
            with listening(served, f"{SOCKET}?topics={PROGRESS}&since={since}") as back:
                back.until("replay_complete")
                assert "replay_gap" not in [message["type"] for message in back.seen]
                assert of_events(back.seen) == [m for m in of_events(whole.seen) if m["event_id"] > since]


def test_pages_begin_with_what_is_known_of_their_tasks(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PAGE", 3)
    with listening(served, f"{SOCKET}?topics={PROGRESS}") as whole:
        whole.until("subscription_response")
        first, second = served.submit(), served.submit()
        task = served.claim()
        for step in range(1, 6):
            served.report(task, step / 8, step=step)
        served.services.tasks.release(task.id, str(task.lease_token))
        served.complete(served.claim())
        served.complete(served.claim())
        whole.until(PROGRESS, status="completed", task_id=second)
        whole.settle()
        for since in range(whole.seen[-1]["event_id"]):
            with listening(served, f"{SOCKET}?topics={PROGRESS}&since={since}") as back:
                back.until("replay_complete")
                assert of_events(back.seen) == [m for m in of_events(whole.seen) if m["event_id"] > since]
    assert first != second


CLIENTS: Final = 200


async def _follow(server: Server, since: int, ready: asyncio.Semaphore, until: str) -> list[dict[str, Any]]:
    """Return what one client is sent from an event on, until a task has ended."""
    seen: list[dict[str, Any]] = []
    async with server.socket(f"?topics={PROGRESS}&since={since}") as client:
        while not seen or seen[-1]["type"] != "replay_complete":
            seen.append(json.loads(await client.recv()))
        ready.release()
        while (seen[-1]["data"].get("task_id"), seen[-1]["data"].get("stage")) != (until, "completed"):
            seen.append(json.loads(await client.recv()))
        while seen[-1].get("more"):
            seen.append(json.loads(await client.recv()))
    return seen


def _work(server: Server, until: str, steps: int) -> None:
    task = server.claim()
    for step in range(1, steps + 1):
        server.report(task, step / (steps + 1), step=step)
    assert task.id == until
    server.complete(task)


def test_two_hundred_clients_on_one_task_each_get_every_event_once_in_order(tmp_path: Path) -> None:
    """And the same ones, after a restart of the server in which they missed a task, exactly what they missed."""
    server = Server(tmp_path / "home")
    first = server.submit()

    async def crowd(since: list[int], until: str, steps: int) -> list[list[dict[str, Any]]]:
        ready = asyncio.Semaphore(0)
        clients = [asyncio.create_task(_follow(server, number, ready, until)) for number in since]
        for _ in clients:
            await asyncio.wait_for(ready.acquire(), 120)
        assert server.services.sockets.active_connections == len(clients)
        await asyncio.to_thread(_work, server, until, steps)
        return list(await asyncio.wait_for(asyncio.gather(*clients), 120))

    seen = asyncio.run(crowd([0] * CLIENTS, first, 12))
    log = [event.id for event in server.services.events.after(0)]
    reference = of_events(seen[0])
    for message in seen[0]:
        read(json.dumps(message))
    assert sorted({message["event_id"] for message in reference}) == log
    assert all(of_events(one) == reference for one in seen)
    keys = [(message["event_id"], message["type"]) for message in reference]
    assert len(keys) == len(set(keys))
    assert [key[0] for key in keys] == sorted(key[0] for key in keys)

    server.submit()
    _work(server, server.services.tasks.list()[0].id, 3)  # nobody listens
    second = server.submit()
    server.stop()
    server = Server(tmp_path / "home")
    try:
        # They come back from where each of them was when it lost the server.
        were_at = [log[number % len(log)] for number in range(CLIENTS)]
        again = asyncio.run(crowd(were_at, second, 2))
        with_all = asyncio.run(_all_of(server, log[-1] + 1))
        whole = of_events(with_all)
        for since, one in zip(were_at, again, strict=True):
            assert of_events(one) == [message for message in whole if message["event_id"] > since]
    finally:
        server.stop()


async def _all_of(server: Server, least: int) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    async with server.socket(f"?topics={PROGRESS}&since=0") as client:
        while not seen or seen[-1]["type"] != "replay_complete":
            seen.append(read(await client.recv()))
    assert seen[-1]["event_id"] >= least
    return seen


def test_clients_that_do_not_read_cost_little_and_harm_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their outboxes stay bounded, they are told why they are dropped, and the others get everything meanwhile."""
    monkeypatch.setattr(connection, "OUTBOX_MESSAGES", 64)
    task_id = server.submit()
    task = server.claim()

    async def run() -> tuple[list[dict[str, Any]], list[tuple[int | None, str | None]], int]:
        ready = asyncio.Semaphore(0)
        reader = asyncio.create_task(_follow(server, 0, ready, task_id))
        await asyncio.wait_for(ready.acquire(), 60)
        async with AsyncExitStack() as open_ones:
            query = f"?topics={PROGRESS}"
            deaf = [
                await open_ones.enter_async_context(server.socket(query, max_queue=1, ping_interval=None))
                for _ in range(3)
            ]
            step, most = 0, 0
            while server.services.sockets.active_connections > 1:
                step += 1
                assert step < 20_000
                await asyncio.to_thread(_report_long, server, task, step)
                most = max(most, *(len(one._outbox) for one in server.services.sockets._connections.values()))
            await asyncio.to_thread(server.complete, task)
            return await asyncio.wait_for(reader, 60), [await _close_of(one) for one in deaf], most

    seen, closed, most = asyncio.run(run())
    assert most <= 64
    assert closed == [(1013, "read too slowly; connect again with since and the last event_id")] * 3
    events = [event.id for event in server.services.events.after(0, 100_000)]
    assert sorted({message["event_id"] for message in of_events(seen)}) == events


def _report_long(server: Server, task: Task, step: int) -> None:
    progress = Progress(Stage.GENERATING, step / 1e5, "x" * 20_000, step=step, total_steps=100_000)
    server.services.tasks.report(task.id, str(task.lease_token), progress)


async def _close_of(client: websockets.ClientConnection) -> tuple[int | None, str | None]:
    """Read what is left of a connection, and return how it was closed."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), 60)
    except websockets.ConnectionClosed:
        return client.close_code, client.close_reason
