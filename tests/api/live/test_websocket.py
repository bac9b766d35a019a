"""The topic protocol in this process: subscriptions, snapshots, replay, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import WebSocketTestSession
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from backend.api.live import connection
from backend.core.domain import Stage
from backend.core.errors.generation import NonFiniteLatents
from tests.api.live.support import checked
from tests.api.support import SOCKET, Served

PROGRESS = "generation_progress"
TOPICS = {
    "system_stats",
    "generation_progress",
    "queue_updates",
    "alerts",
    "gallery_updates",
    "model_status",
    "download_progress",
    "health_monitoring",
    "fallback_notifications",
    "analytics_updates",
}


class Listener:
    """A WebSocket client that remembers what it was sent."""

    def __init__(self, session: WebSocketTestSession) -> None:
        self.session = session
        self.seen: list[dict[str, Any]] = []

    def say(self, kind: str, **data: Any) -> None:
        self.session.send_json({"type": kind, "data": data})

    def next(self) -> dict[str, Any]:
        message = checked(self.session.receive_json())
        self.seen.append(message)
        return message

    def until(self, kind: str, **data: Any) -> dict[str, Any]:
        """Read until a message of this type with these values; the test's own deadline ends a vain wait."""
        while True:
            message = self.next()
            if message["type"] == kind and data.items() <= message["data"].items():
                return message

    def subscribe(self, topic: str, **data: Any) -> dict[str, Any]:
        self.say("subscribe", topic=topic, **data)
        return self.until("subscription_response", topic=topic)

    def settle(self) -> list[dict[str, Any]]:
        """Return what came since the last call, up to the answer of a ping."""
        before = len(self.seen)
        self.say("ping", timestamp="settle")
        self.until("pong", timestamp="settle")
        return self.seen[before:-1]


@contextmanager
def listening(served: Served, path: str = SOCKET) -> Iterator[Listener]:
    with served.client.websocket_connect(path) as session:
        listener = Listener(session)
        assert listener.next()["type"] == "connection_established"
        yield listener


def test_the_first_message_introduces_the_server(served: Served) -> None:
    for path in (SOCKET, "ws://127.0.0.1:8000/api/v1/ws"):
        with listening(served, path) as listener:
            welcome = listener.seen[0]
            assert set(welcome["data"]["available_topics"]) == TOPICS
            assert welcome["data"]["connection_id"]
            assert isinstance(welcome["event_id"], int)


def test_the_control_messages(served: Served) -> None:
    with listening(served) as listener:
        answer = listener.subscribe("queue_updates")
        assert answer["data"]["subscribed"] is True
        listener.say("get_status")
        status = listener.until("status_response")["data"]
        assert (status["subscriptions"]["queue_updates"], status["subscriptions"]["alerts"]) == (True, False)
        assert (status["active_connections"], status["subscription_counts"]["queue_updates"]) == (1, 1)
        stats = served.client.get("/api/v1/ws/stats").json()
        assert stats["active_connections"] == 1
        assert stats["subscription_counts"] == status["subscription_counts"]
        assert set(stats["available_topics"]) == TOPICS
        listener.say("unsubscribe", topic="queue_updates")
        assert listener.until("unsubscription_response")["data"]["unsubscribed"] is True
        for timestamp in ("2026-01-01T00:00:00Z", 12, 1.5, "\ud800"):
            listener.session.send({"type": "websocket.receive", "text": json.dumps(_ping(timestamp))})
            assert listener.until("pong")["data"] == {"timestamp": timestamp, "message": "pong"}
    assert served.client.get("/api/v1/ws/stats").json()["active_connections"] == 0


def _ping(timestamp: object) -> dict[str, Any]:
    return {"type": "ping", "data": {"timestamp": timestamp}}


def test_counts_never_run_ahead_of_what_was_told(served: Served) -> None:
    """Tasks end while the server reads: a count that is told contains what was told before it, no more and no less."""
    with listening(served) as listener:
        listener.subscribe("queue_updates")
        for _ in range(40):
            served.complete_one()
        listener.until("queue_update", completed_tasks=40)

    told: Counter[str] = Counter()
    for message in listener.seen:
        if message["type"] == "task_update":
            told[message["status"]] += 1
        if message["type"] == "queue_update":
            counts = message["data"]
            assert (counts["total_tasks"], counts["completed_tasks"]) == (told["pending"], told["completed"])


NONSENSE = [
    "",
    "hello",
    "[]",
    "null",
    "{}",
    '{"type": 5}',
    '{"type": "steal"}',
    '{"type": ["subscribe"]}',
    '{"type": {"a": 1}}',
    '{"type": "\\ud800"}',
    '{"type": "subscribe"}',
    '{"type": "subscribe", "data": "queue_updates"}',
    '{"type": "subscribe", "data": {"topic": "secrets"}}',
    '{"type": "subscribe", "data": {"topic": ["alerts"]}}',
    '{"type": "subscribe", "data": {"topic": {"a": 1}}}',
    '{"type": "subscribe", "data": {"topic": "alerts", "after_event": -1}}',
    '{"type": "subscribe", "data": {"topic": "alerts", "after_event": true}}',
    '{"type": "subscribe", "data": {"topic": "alerts", "after_event": "1"}}',
    '{"type": "subscribe", "data": {"topic": "alerts", "after_event": 1e400}}',
    '{"type": "subscribe", "data": {"topic": "alerts", "after_event": 99999999999999999999}}',
    '{"type": "unsubscribe", "data": {"topic": 7}}',
    "[" * 10_000,
    '{"type": "ping", "data": {"timestamp": ' + "9" * 5000 + "}}",
]


def test_nonsense_is_answered_and_the_connection_lives(served: Served) -> None:
    with listening(served) as listener:
        for text in NONSENSE:
            listener.session.send_text(text)
            answer = listener.next()
            assert answer["type"] == "error", text
            assert isinstance(answer["data"]["message"], str)
        listener.session.send_bytes(b"\x00\x01")
        assert listener.next()["type"] == "error"
        for timestamp in ("NaN", "1e400", "true", "null", '{"a": 1}', '"' + "x" * 65 + '"'):
            listener.session.send_text('{"type": "ping", "data": {"timestamp": ' + timestamp + "}}")
            assert listener.next()["data"] == {"message": "pong"}


def test_a_huge_message_ends_the_connection_with_its_code(served: Served) -> None:
    with served.client.websocket_connect(SOCKET) as session:
        session.receive_json()
        session.send_text('{"type": "ping", "data": {"timestamp": "' + "x" * 100_000 + '"}}')
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_json()
        assert closed.value.code == 1009


def test_a_task_is_told_from_queue_to_video(served: Served) -> None:
    with listening(served) as listener:
        listener.subscribe(PROGRESS)
        listener.subscribe("queue_updates")
        task_id = served.submit()
        update = listener.until("task_update", status="pending")
        assert update["task_id"] == update["data"]["task_id"] == task_id
        assert (update["status"], update["message"]) == ("pending", update["data"]["message"])
        task = served.claim()
        served.report(task, 0.1, step=0, stage=Stage.LOADING_MODEL)
        for step in range(1, 5):
            served.report(task, 0.1 + step / 5, step=step)
        served.complete(task)
        listener.until("queue_update", completed_tasks=1)

    messages = listener.seen
    updates = [message["status"] for message in messages if message["type"] == "task_update"]
    assert updates == ["pending", "processing", "completed"]  # one for each state, none for each step
    done = next(message for message in messages if message.get("status") == "completed")
    assert done["output_path"] == done["data"]["output_path"] == f"/api/v1/outputs/{task_id}/video"

    overall = [message["data"] for message in messages if message["type"] == PROGRESS]
    assert [data["progress"] for data in overall] == sorted(data["progress"] for data in overall)
    assert (overall[-1]["progress"], overall[-1]["status"]) == (100.0, "completed")

    detailed = [message["data"] for message in messages if message["type"] == "detailed_generation_progress"]
    step = next(data for data in detailed if data.get("current_step") == 2)
    assert (step["stage"], step["total_steps"], step["estimated_time_remaining"]) == ("generating", 4, 6.5)
    assert step["generation_start_time"] <= step["stage_start_time"]
    assert (detailed[-1]["stage"], detailed[-1]["total_generation_time"]) == ("completed", 1.25)
    assert detailed[-1]["estimated_time_remaining"] is None

    stages = [message["data"]["stage"] for message in messages if message["type"] == "generation_stage"]
    assert stages == ["generation_started", "loading_model", "generating", "completed"]
    assert all(message["data"]["timestamp"].endswith("Z") for message in messages if "progress" in message["data"])
    ids = [message["event_id"] for message in messages]
    assert ids == sorted(ids)


def test_a_failure_is_told_with_its_advice(served: Served) -> None:
    with listening(served) as listener:
        listener.subscribe(PROGRESS)
        task_id = served.submit()
        task = served.claim()
        served.report(task, 0.5, step=2)
        served.services.tasks.fail(task.id, str(task.lease_token), NonFiniteLatents())
        update = listener.until("task_update", status="failed")
        assert "not numbers" in update["message"]
        data = listener.until(PROGRESS, status="failed")["data"]
        assert data["progress"] == 50.0
        assert data["error_details"]["category"] == "generation_pipeline"
        assert data["error_details"]["suggestions"]
        assert data["error_details"]["retryable"] is False
        detailed = listener.until("detailed_generation_progress")["data"]
        assert (detailed["stage"], detailed["error_message"]) == ("failed", update["message"])
        assert detailed["task_id"] == task_id


def test_a_lost_attempt_goes_back_to_the_queue_and_starts_over(served: Served) -> None:
    with listening(served) as listener:
        listener.subscribe(PROGRESS)
        served.submit()
        served.report(served.claim(), 0.5, step=2)
        listener.until(PROGRESS, progress=50.0)
        served.services.tasks.recover_worker("host:1:1:test")
        update = listener.until("task_update", status="pending")
        assert "died" in update["message"]
        assert listener.until(PROGRESS)["data"]["progress"] == 0.0
        task = served.claim()
        assert listener.until("generation_stage", stage="generation_started")["data"]["attempt"] == 2
        served.services.tasks.release(task.id, str(task.lease_token))
        assert "stopped" in listener.until("task_update", status="pending")["message"]


def test_messages_go_only_to_those_who_asked(served: Served) -> None:
    with listening(served) as deaf, listening(served) as listener:
        listener.subscribe(PROGRESS)
        served.submit()
        served.report(served.claim(), 0.5, step=2)
        listener.until(PROGRESS, progress=50.0)
        assert {message["type"] for message in deaf.settle()} == {"task_update"}
        listener.say("unsubscribe", topic=PROGRESS)
        listener.until("unsubscription_response")
        served.submit()
        deaf.until("task_update", status="pending")
        assert {message["type"] for message in listener.settle()} == {"task_update"}


def test_a_late_client_starts_from_the_state_of_now(served: Served) -> None:
    served.complete_one()
    running_id = served.submit()
    waiting_id = served.submit(prompt="a blue ring")
    task = served.claim()
    with listening(served) as early:
        early.subscribe(PROGRESS)
        served.report(task, 0.25, step=1)
        served.report(task, 0.5, step=2)
        early.until(PROGRESS, progress=50.0)
        with listening(served) as late:
            late.subscribe(PROGRESS)
            snapshot = late.settle()
            assert all(message["data"]["snapshot"] for message in snapshot)
            by_type = {(message["type"], message["data"]["task_id"]): message["data"] for message in snapshot}
            assert by_type[PROGRESS, running_id]["progress"] == 50.0
            assert by_type["detailed_generation_progress", running_id]["current_step"] == 2
            assert by_type["generation_stage", running_id]["stage"] == "generating"
            assert by_type[PROGRESS, waiting_id]["status"] == "pending"
            assert {task_id for _, task_id in by_type} == {running_id, waiting_id}  # the finished one is history
            served.report(task, 0.75, step=3)
            served.complete(task)
            late.until(PROGRESS, status="completed")
            early.until(PROGRESS, status="completed")
            after = [m for m in late.seen if m["type"] == PROGRESS and not m["data"].get("snapshot")]
            assert [m["data"]["progress"] for m in after] == [75.0, 100.0]
            assert after == [m for m in early.seen if m["type"] == PROGRESS][-2:]


def test_a_server_that_starts_in_the_middle_knows_the_state(served: Served) -> None:
    task_id = served.submit()
    task = served.claim()
    served.report(task, 0.5, step=2)
    again = Served(served.services.home.root)
    try:
        with listening(again) as listener:
            listener.subscribe(PROGRESS)
            data = listener.until("detailed_generation_progress", task_id=task_id)["data"]
            assert (data["progress"], data["current_step"], data["stage"]) == (50.0, 2, "generating")
            served.report(task, 0.75, step=3)
            assert listener.until(PROGRESS)["data"]["task_id"] == task_id
    finally:
        again.client.__exit__(None, None, None)


def test_who_comes_back_misses_nothing(served: Served) -> None:
    with listening(served) as whole:
        whole.subscribe(PROGRESS)
        with listening(served) as first:
            first.subscribe(PROGRESS)
            task_ids = [served.submit(), served.submit()]
            task = served.claim()
            served.report(task, 0.25, step=1)
            last_seen = first.until(PROGRESS, progress=25.0)["event_id"]
        served.report(task, 0.5, step=2)
        served.complete(task)
        second = served.claim()
        served.report(second, 0.5, step=2)
        whole.until(PROGRESS, progress=50.0, task_id=task_ids[1])
        with listening(served) as back:
            back.subscribe(PROGRESS, after_event=last_seen)
            served.report(second, 0.75, step=3)
            served.complete(second)
            back.until(PROGRESS, status="completed", task_id=task_ids[1])
            whole.until(PROGRESS, status="completed", task_id=task_ids[1])
            missed = [m for m in whole.seen if m["type"] == PROGRESS and m["event_id"] > last_seen]
            assert [m for m in back.seen if m["type"] == PROGRESS] == missed
            assert not any(m["data"].get("snapshot") for m in back.seen)


def test_alerts_reach_their_topic_and_come_again_for_those_who_missed_them(served: Served) -> None:
    served.submit()
    task = served.claim()
    told = {"alert_type": "memory", "severity": "critical", "message": "The card's memory is 92 % full"}
    with listening(served) as listener, listening(served) as other:
        listener.subscribe("alerts")
        other.subscribe(PROGRESS)
        before = other.subscribe("queue_updates")["event_id"]
        served.services.tasks.alert(task.id, str(task.lease_token), told)
        alert = listener.until("alert")
        assert alert["data"].items() >= (told | {"task_id": task.id}).items()
        assert "timestamp" in alert["data"]
        served.report(task, 0.5, step=2)
        other.until(PROGRESS, progress=50.0)
        assert not any(message["type"] == "alert" for message in other.seen)
        other.subscribe("alerts", after_event=before)
        assert other.until("alert") == alert


def test_missed_changes_of_state_come_with_the_queue_topic(served: Served) -> None:
    task_id = served.complete_one()
    with listening(served) as back:
        back.subscribe("queue_updates", after_event=0)
        back.until("queue_update", completed_tasks=1)
        # What happens while the client connects comes live, before the replay: the event's number orders them.
        updates = sorted((m for m in back.seen if m["type"] == "task_update"), key=lambda m: m["event_id"])
        assert [m["status"] for m in updates] == ["pending", "processing", "completed"]
        assert {m["task_id"] for m in back.seen if m["type"] == "task_update"} == {task_id}


def test_a_replay_of_a_future_event_is_a_snapshot(served: Served) -> None:
    task_id = served.submit()
    with listening(served) as first, listening(served) as listener:
        first.subscribe(PROGRESS)
        first.until(PROGRESS)  # from here on the server has read the event of the submit
        listener.subscribe(PROGRESS, after_event=10**9)
        assert listener.until(PROGRESS)["data"] | {"snapshot": True} == listener.seen[-1]["data"]
        assert listener.seen[-1]["data"]["task_id"] == task_id


def test_statistics_flow_while_somebody_listens(serve: Any) -> None:
    served: Served = serve(stats_seconds=0.05)
    with listening(served) as listener, listening(served) as deaf:
        listener.subscribe("system_stats")
        for _ in range(2):
            stats = listener.until("system_stats_update")["data"]
            assert 0 <= stats["cpu_percent"] <= 100
            assert {"ram_percent", "timestamp"} <= stats.keys()
            assert ("vram_percent" in stats) is stats["gpu_available"]
        assert deaf.settle() == []
        listener.say("unsubscribe", topic="system_stats")
        listener.until("unsubscription_response")
        listener.subscribe("system_stats")
        listener.until("system_stats_update")


def test_a_server_that_stops_says_so(serve: Any) -> None:
    served: Served = serve()
    with served.client.websocket_connect(SOCKET) as session:
        session.receive_json()
        served.client.portal.call(served.services.sockets.stop)
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_json()
        assert closed.value.code == 1001


def test_a_client_that_does_not_read_is_let_go_with_a_clear_code(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket takes three messages and then blocks, as a full TCP buffer does, until the server gives up."""
    monkeypatch.setattr(connection, "OUTBOX_MESSAGES", 40)  # the real one holds 1,024: too many commits for a test
    sent: list[Message] = []
    blocked = asyncio.Event()
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "ws",
        "path": "/ws",
        "raw_path": b"/ws",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000")],
        "subprotocols": [],
        "state": {},
    }

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send" and len(sent) > 2:
            blocked.set()
            await asyncio.Event().wait()
        sent.append(message)

    async def run() -> None:
        await incoming.put({"type": "websocket.connect"})
        await incoming.put(
            {"type": "websocket.receive", "text": '{"type": "subscribe", "data": {"topic": "' + PROGRESS + '"}}'}
        )
        await served.app(scope, incoming.get, send)

    future = served.client.portal.start_task_soon(run)
    task_id = served.submit()
    task = served.claim()
    for number in range(40):
        served.report(task, number / 40, step=number % 5)
    future.result(timeout=60)
    assert blocked.is_set()
    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == 1013
    assert "since" in sent[-1]["reason"]
    assert served.client.get("/api/v1/ws/stats").json()["active_connections"] == 0
    assert served.client.get(f"/api/v1/queue/{task_id}").status_code == 200
