"""`docs/asyncapi.json` describes what is sent and understood, and the messages have the shapes that clients know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from backend.api.live.messages import TOPICS
from backend.core.domain import Stage
from backend.core.errors.generation import OutOfMemory
from tests.api.live.support import DOCUMENT, PAYLOADS
from tests.api.live.test_websocket import Listener, listening
from tests.api.support import TINY, Served

#: The fields of each message as a client gets them; a change here is a change for every client.
PINNED: Final = Path(__file__).parent / "messages.json"
#: What comes when it is time, and what depends on the machine's cards.
BY_MACHINE: Final = {"heartbeat", "system_stats_update", "vram_monitoring"}


def _references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [one for item in part for one in _references(item)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [one for item in part.values() for one in _references(item)]


def test_the_description_is_whole() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    references = _references(DOCUMENT)
    assert len(references) > 100
    for reference in references:
        part: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert schema.get("description"), name
    for channel in DOCUMENT["channels"].values():
        assert all(DOCUMENT["components"]["messages"][name]["summary"] for name in channel["messages"])


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        ({"type": "subscribe", "data": {"topic": "alerts"}}, True),
        ({"action": "subscribe", "topics": ["alerts", "queue_updates"], "since": 3}, True),
        ({"type": "subscribe", "data": {"topic": "alerts", "since": "3"}}, False),
        ({"type": "subscribe", "data": {"topic": "alerts", "since": -1}}, False),
        ({"type": "subscribe", "data": {"topic": 3}}, False),
        ({"type": "subscribe", "since": 3}, False),
        ({"type": "unsubscribe", "topic": "alerts"}, True),
        ({"type": "unsubscribe", "data": {}}, False),
        ({"type": "ping", "data": {"timestamp": 7}}, True),
        ({"type": "get_status"}, True),
    ],
)
def test_the_server_understands_what_the_description_allows(
    shared: Served, message: dict[str, Any], understood: bool
) -> None:
    kind = message.get("type", message.get("action"))
    assert PAYLOADS[kind].is_valid(message) is understood
    with listening(shared) as listener:
        listener.session.send_json(message)
        answer = listener.next()
        while answer["type"] in ("connection_established", "task_update"):
            answer = listener.next()
        assert (answer["type"] != "error") is understood


def test_messages_have_the_fields_that_clients_know(served: Served) -> None:
    """Every type that two tasks and a client cause, with the fields that came and their kinds."""
    with listening(served) as listener:
        listener.session.send_json({"type": "subscribe", "data": {"topics": list(TOPICS)}})
        listener.until("system_stats_update")
        listener.session.send_json({"type": "ping", "timestamp": 1})
        listener.session.send_json({"type": "get_status"})
        listener.session.send_json({"type": "nonsense"})
        listener.until("error")
        _work(served)
        listener.until("alternative_model_suggestion")
        listener.settle()
        shapes = _shapes(listener)
    pinned = json.loads(PINNED.read_text())
    assert shapes == pinned, f"clients know other fields; now they are\n{json.dumps(shapes, indent=1, sort_keys=True)}"


def _work(served: Served) -> None:
    """Let one task be completed, mark and trash its video, and let another fail."""
    served.submit()
    task = served.claim()
    served.report(task, 0.1, stage=Stage.LOADING_MODEL)
    served.report(task, 0.5, step=2)
    alert = {"alert_type": "other_model", "severity": "warning", "message": "another", "alternative_model": TINY}
    served.services.tasks.alert(task.id, str(task.lease_token), alert)
    served.complete(task)
    assert served.client.patch(f"/api/v1/outputs/{task.id}", json={"favourite": True}).status_code == 200
    assert served.client.delete(f"/api/v1/outputs/{task.id}").status_code == 200
    served.submit()
    task = served.claim()
    action = {"name": "resubmit", "changes": {"model_type": TINY}}
    served.services.tasks.fail(task.id, str(task.lease_token), OutOfMemory("no room", actions=(action,)))


def _shapes(listener: Listener) -> dict[str, dict[str, str]]:
    """Return the kind of each field by message type and name; "?" = not in every message of the type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for message in listener.seen:
        fields = {name: value for name, value in message["data"].items() if name != "snapshot"}
        found.setdefault(message["type"], []).append(fields)
    return {
        kind: {
            name + ("" if all(name in one for one in all_of_it) else "?"): _kind(
                next(one[name] for one in all_of_it if one.get(name) is not None)
            )
            for name in sorted({name for one in all_of_it for name in one if one[name] is not None})
        }
        for kind, all_of_it in sorted(found.items())
        if kind not in BY_MACHINE
    }


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "list", dict: "object"}[type(value)]
