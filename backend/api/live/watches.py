"""Looks at what no event announces, while somebody subscribes to it, and sends what has changed since the last look.

Knows connections and turns, not what is looked at (`standing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import structlog

from backend.api.live.connection import Connection
from backend.core.access.caller import Caller, acting_as
from backend.core.errors.base import WanError

#: Interval between two looks, in seconds.
WATCH_SECONDS: Final = 2.0

#: Type and data of a message.
Message = tuple[str, dict[str, Any]]
#: Sends one message to one client.
Send = Callable[[Connection, Message], None]

log = structlog.get_logger(__name__)


class Watch(Protocol):
    """One thing that is looked at, as one caller sees it."""

    def look(self) -> list[Message]:
        """Look, and return what has changed since the last look; nothing at the first one."""

    def state(self) -> list[Message]:
        """Return the whole as it was at the last look, for a newcomer."""


#: Makes the watch of each topic.
Watched = Mapping[str, Callable[[], Watch]]


class Watches:
    """The watches of all topics, one for each group of callers that see the same. Bound to one event loop."""

    def __init__(self, watched: Watched, connections: Mapping[str, Connection], send: Send) -> None:
        self._watched = watched
        self._connections = connections
        self._send = send
        self._open: dict[tuple[str, str | None], Watch] = {}
        self._turn = asyncio.Lock()  # a newcomer's state and the changes after it come from the same looks

    async def welcome(self, connection: Connection, topic: str) -> None:
        """Subscribe a client: it gets the state of now, and from then on every change."""
        async with self._turn:
            for kind, data in await self._look(topic, connection.caller):
                self._send(connection, (kind, data | {"snapshot": True}))
            connection.topics.add(topic)

    async def look(self) -> None:
        """Look once at everything that somebody subscribes to, and forget the rest."""
        async with self._turn:
            callers = {
                (topic, one.caller.confined_to): one.caller
                for one in self._connections.values()
                for topic in one.topics & self._watched.keys()
            }
            self._open = {key: watch for key, watch in self._open.items() if key in callers}
            for (topic, _), caller in callers.items():
                await self._look(topic, caller)

    async def _look(self, topic: str, caller: Caller) -> list[Message]:
        """Look at one topic, tell its subscribers, and return its state; nothing when it cannot be looked at now."""
        key = (topic, caller.confined_to)
        known = self._open.get(key)

        def looked() -> tuple[Watch, list[Message], list[Message]]:
            with acting_as(caller):
                watch = known or self._watched[topic]()
                return watch, watch.look(), watch.state()

        try:
            self._open[key], messages, state = await asyncio.to_thread(looked)
        except WanError as error:
            log.warning("watch.unreadable", topic=topic, code=error.code)
            return []
        except Exception:  # the boundary of a loop that must live as long as the process
            log.exception("watch.crashed", topic=topic)
            return []
        for one in self._connections.values():
            if topic in one.topics and one.caller.confined_to == caller.confined_to:
                for message in messages:
                    self._send(one, message)
        return state
