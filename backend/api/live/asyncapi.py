"""The description of the live messages in AsyncAPI's form, made from the definitions that send them.

`docs/asyncapi.json` is this description; a test compares the two, so that no message changes its shape unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from backend import __version__
from backend.api.live import shapes
from backend.api.live.messages import CONTROL, FOR_ALL, TOPICS, VERSION, MessageType

_SCHEMAS: Final = "#/components/schemas/"
_MESSAGES: Final = "#/components/messages/"
#: What a client may say to the socket.
ASKED: Final = (
    MessageType("subscribe", shapes.Subscribe, "Get the messages of topics from now on, or since an event"),
    MessageType("unsubscribe", shapes.Unsubscribe, "Get the messages of a topic no longer"),
    MessageType("ping", shapes.Ping, "Ask for a `pong`"),
    MessageType("get_status", shapes.GetStatus, "Ask for a `status_response`"),
)
#: A control message of the stream alone; a socket has a close code and a reason for it.
_OF_STREAM: Final = "connection_closing"
#: Control messages of the socket alone: a stream takes no messages, and its sign of life is a comment.
_OF_SOCKET: Final = frozenset({"unsubscription_response", "pong", "status_response", "error", "heartbeat"})


def document() -> dict[str, Any]:
    """Return the whole description."""
    sent = [*CONTROL, *FOR_ALL, *(one for kinds in TOPICS.values() for one in kinds)]
    components = {
        "messages": {one.name: _message(one, topic) for one, topic in _with_topics()}
        | {one.name: _asked(one) for one in ASKED},
        "schemas": _schemas(one.shape for one in (*sent, *ASKED)),
    }
    socket = [one.name for one in sent if one.name != _OF_STREAM]
    stream = [one.name for one in sent if one.name not in _OF_SOCKET]
    asked = [one.name for one in ASKED]
    query = {"topics": {"type": "string"}, "since": {"type": "string", "pattern": "^[0-9]*$"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "wan22 live messages",
            "version": __version__,
            "description": f"Version {VERSION} of the messages. docs/api.md explains topics, replay and limits.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "socket": {"host": "127.0.0.1:8000", "protocol": "ws"},
            "stream": {"host": "127.0.0.1:8000", "protocol": "http"},
        },
        "channels": {
            "socket": {
                "address": "/ws",
                "description": "Also at /api/v1/ws.",
                "servers": [{"$ref": "#/servers/socket"}],
                "messages": _references(_MESSAGES, [*socket, *asked]),
                "bindings": {"ws": {"query": {"type": "object", "properties": query}}},
            },
            "stream": {
                "address": "/api/v1/events",
                "description": "Server-sent events: `event` is the type, `data` the message, `id` its event_id.",
                "servers": [{"$ref": "#/servers/stream"}],
                "messages": _references(_MESSAGES, stream),
            },
        },
        "operations": {
            "sendToSocket": _operation("send", "socket", socket),
            "receiveFromSocket": _operation("receive", "socket", asked),
            "sendToStream": _operation("send", "stream", stream),
        },
        "components": components,
    }


def _with_topics() -> Iterator[tuple[MessageType, str]]:
    for one in CONTROL:
        yield one, "connection"
    for one in FOR_ALL:
        yield one, "all clients"
    for topic, kinds in TOPICS.items():
        for one in kinds:
            yield one, topic


def _message(kind: MessageType, topic: str) -> dict[str, Any]:
    """Describe a message of the server; those for all clients repeat their data beside the type."""
    data = {"$ref": f"{_SCHEMAS}{kind.shape.__name__}"}
    payload: dict[str, Any] = {
        "type": "object",
        "properties": {
            "type": {"const": kind.name},
            "version": {"const": VERSION},
            "event_id": {"type": "integer", "description": "The number of the event up to which this is current"},
            "more": {"const": True, "description": "Others of the same event follow"},
            "data": data,
        },
        "required": ["type", "version", "event_id", "data"],
    }
    if kind in FOR_ALL:
        payload = {"allOf": [payload, data]}
    return {"name": kind.name, "summary": kind.purpose, "tags": [{"name": topic}], "payload": payload}


def _asked(kind: MessageType) -> dict[str, Any]:
    """Describe a message of a client: its fields stand in `data` or beside the type."""
    data = {"$ref": f"{_SCHEMAS}{kind.shape.__name__}"}
    named = {"anyOf": [{"required": ["type"]}, {"required": ["action"]}]}
    names = {"type": {"const": kind.name}, "action": {"const": kind.name}}
    placed = {"if": {"required": ["data"]}, "then": {"properties": {"data": data}}, "else": data}
    return {
        "name": kind.name,
        "summary": kind.purpose,
        "tags": [{"name": "client"}],
        "payload": {"type": "object", "properties": names, "allOf": [named, placed]},
    }


def _operation(action: str, channel: str, names: Iterable[str]) -> dict[str, Any]:
    prefix = f"#/channels/{channel}/messages/"
    messages = [{"$ref": prefix + name} for name in names]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": messages}


def _references(prefix: str, names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": prefix + name} for name in names}


def _schemas(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Return the JSON schemas of the data; a field that may be absent is never null."""
    wanted = [(one, "validation") for one in dict.fromkeys(models)]
    _, found = models_json_schema(wanted, ref_template=f"{_SCHEMAS}{{model}}")  # type: ignore[arg-type]
    schemas: dict[str, Any] = found["$defs"]
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            if name not in schema.get("required", ()):
                schema["properties"][name] = _not_null(field)
    return schemas


def _not_null(field: dict[str, Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [one for one in field.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    if len(choices) == 1:
        return rest | choices[0]
    return rest | ({"anyOf": choices} if choices else {})
