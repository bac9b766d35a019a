"""Live updates over WebSocket: topics, subscriptions, snapshots for new clients, replay for returning ones.

Follows the event log by id and keeps no state that could disagree with the database. docs/api.md lists the
messages; each carries the `event_id` up to which it is current, and a subscription with `after_event`
continues from there.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import WebSocket
from pydantic import BaseModel

from backend.api.http.access import accepted_subprotocol
from backend.api.http.addressing import Links
from backend.api.http.deps import ServicesDep
from backend.api.http.errors import error_answer
from backend.api.http.routing import Routes
from backend.api.live.connection import GOING_AWAY, TOO_LARGE, TOO_SLOW, Connection, encode
from backend.api.live.download_feed import DOWNLOAD_TOPIC
from backend.api.live.standing import HEALTH_TOPIC, MODEL_TOPIC, USE_TOPIC, card_messages
from backend.api.live.task_feed import ALERTS_TOPIC, FALLBACK_TOPIC, PROGRESS_TOPIC, Notice, TaskFeed
from backend.api.live.watches import WATCH_SECONDS, Watched, Watches
from backend.api.system.health import system_stats
from backend.api.tasks.queue import queue_counts
from backend.core.access.caller import Caller, acting_as
from backend.core.domain import TERMINAL, EventType, TaskStatus, iso, utcnow
from backend.core.errors.base import WanError
from backend.core.errors.surroundings import TooManyConnections
from backend.core.settings import Settings
from backend.services.system.host_stats import HostStats
from backend.store.events import EventLog
from backend.store.tasks import TaskStore

log = structlog.get_logger(__name__)

QUEUE_TOPIC: Final = "queue_updates"
STATS_TOPIC: Final = "system_stats"
TOPICS: Final = (
    STATS_TOPIC,
    PROGRESS_TOPIC,
    QUEUE_TOPIC,
    ALERTS_TOPIC,
    MODEL_TOPIC,
    DOWNLOAD_TOPIC,
    HEALTH_TOPIC,
    FALLBACK_TOPIC,
    USE_TOPIC,
)
#: Topics whose messages come from the event log, and so can be sent again.
REPLAYED: Final = (PROGRESS_TOPIC, QUEUE_TOPIC, ALERTS_TOPIC, FALLBACK_TOPIC)
MAX_CONNECTIONS = 256
MAX_FRAME_CHARS = 16_384
MAX_REPLAY = 20_000  # events; a client that missed more is better served by the snapshot
PAGE = 500
RETRY_SECONDS = 1.0

Handler = Callable[[Connection, dict[str, Any]], Coroutine[Any, Any, None]]

router = Routes()
#: Interval between two looks at whether the queue is paused, in seconds.
PAUSES_SECONDS = 0.5


class SocketStats(BaseModel):
    """Who listens to what over WebSocket."""

    active_connections: int
    subscription_counts: dict[str, int]
    available_topics: list[str]


class ConnectionManager:
    """All WebSocket clients of this process and the two loops that feed them. Bound to one event loop."""

    def __init__(self, settings: Settings, tasks: TaskStore, events: EventLog, stats: HostStats) -> None:
        self._settings = settings
        self._tasks = tasks
        self._events = events
        self._stats = stats
        self._connections: dict[str, Connection] = {}
        self._board = TaskFeed()
        self._counts: dict[TaskStatus, int] = {}
        self._paused = False  # whether the queue is
        self._position = 0
        self._stats_wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._watches: Watches | None = None
        self._watched: frozenset[str] = frozenset()
        self._handlers: dict[str, Handler] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "ping": self._ping,
            "get_status": self._status,
        }

    async def start(self) -> None:
        """Load the state of the queue and start following the event log."""
        self._event_loop = asyncio.get_running_loop()
        # Counts first: events that occur before the tasks are read are then folded twice, which is harmless.
        self._counts, self._position = await asyncio.to_thread(self._tasks.tally)
        active = [status for status in TaskStatus if status not in TERMINAL]
        lists = [await asyncio.to_thread(self._tasks.list, status) for status in active]
        self._board = TaskFeed(sorted((task for tasks in lists for task in tasks), key=lambda task: task.created_at))
        while await self._follow_once():
            pass
        self._loops = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._follow_pauses()),
            asyncio.create_task(self._send_stats()),
            asyncio.create_task(self._look()),
        ]

    async def stop(self) -> None:
        """Disconnect every client and end the loops."""
        self._event_loop = None
        self._stopping.set()
        self._stats_wanted.set()
        for connection in self._connections.values():
            connection.let_go(GOING_AWAY, "the server stops")
        await asyncio.gather(*self._loops)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one client until either side disconnects."""
        if len(self._connections) >= MAX_CONNECTIONS or self._stopping.is_set():
            await _refuse_for_now(websocket)
            return
        await websocket.accept(accepted_subprotocol(websocket.scope.get("subprotocols", [])))
        connection = Connection(websocket, self._position)
        self._connections[connection.id] = connection
        welcome = {"connection_id": connection.id, "available_topics": list(TOPICS), "message": "Connected"}
        self._answer(connection, "connection_established", welcome)
        try:
            await connection.run(partial(self._read, connection))
        finally:
            del self._connections[connection.id]

    def watch(self, watched: Watched) -> None:
        """Name what is looked at while somebody subscribes; before `start`."""
        self._watches = Watches(watched, self._connections, lambda one, message: self._answer(one, *message))
        self._watched = frozenset(watched)

    def publish(self, topic: str | None, kind: str, data: dict[str, Any]) -> None:
        """Publish a message that is not a task event. Thread-safe; dropped before `start`."""
        loop = self._event_loop
        if loop is not None:
            text = partial(encode, kind, data=data, flat=topic is None)
            loop.call_soon_threadsafe(lambda: self._publish(topic, text(event_id=self._position)))

    def subscription_counts(self) -> dict[str, int]:
        """Return the number of subscribers per topic."""
        return {topic: sum(topic in one.topics for one in self._connections.values()) for topic in TOPICS}

    @property
    def active_connections(self) -> int:
        """Number of connected clients."""
        return len(self._connections)

    @property
    def follows(self) -> bool:
        """Whether the event log is being followed and clients receive updates."""
        return bool(self._loops) and not any(loop.done() for loop in self._loops)

    # --- from the client ---------------------------------------------------------------------------------

    async def _read(self, connection: Connection) -> None:
        while (text := await connection.receive()) is not None:
            if len(text) > MAX_FRAME_CHARS:
                connection.let_go(TOO_LARGE, "message too large")
                return
            message = _parse(text)
            handler = self._handlers.get(str(message.get("type"))) if message else None
            if message is None or handler is None:
                known = ", ".join(self._handlers)
                await self._complain(connection, f"Send a JSON object with a type: {known}")
                continue
            data = message.get("data")
            await handler(connection, data if isinstance(data, dict) else {})

    async def _subscribe(self, connection: Connection, data: dict[str, Any]) -> None:
        topic, after = data.get("topic"), data.get("after_event")
        if not isinstance(topic, str) or topic not in TOPICS:
            await self._complain(connection, f"Unknown topic. Use one of: {', '.join(TOPICS)}")
            return
        if after is not None and (type(after) is not int or not 0 <= after <= 2**53):
            await self._complain(connection, "after_event must be the number of an event")
            return
        answer = {"topic": topic, "subscribed": True, "message": f"Subscribed to {topic}"}
        await connection.send(encode("subscription_response", self._position, answer))
        replayable = after is not None and self._position - MAX_REPLAY <= after <= self._position
        if replayable and after is not None and topic in REPLAYED:
            await self._replay(connection, topic, after)
        # Nothing awaits from here on, so no event can slip between the snapshot and the live messages.
        elif topic == PROGRESS_TOPIC:
            for notice in self._board.snapshot(connection.caller.confined_to):
                connection.offer(encode(notice.type, self._position, notice.data | {"snapshot": True}))
        if self._watches is not None and topic in self._watched:
            await self._watches.welcome(connection, topic)
        connection.topics.add(topic)
        if topic == QUEUE_TOPIC:
            connection.offer(self._queue_update(await self._counts_seen_by(connection.caller)))
        if topic == STATS_TOPIC:
            self._stats_wanted.set()

    async def _replay(self, connection: Connection, topic: str, after: int) -> None:
        """Send missed messages at the client's own speed until it has caught up with the live ones."""
        board = TaskFeed()
        known: set[str] = set()
        while after < self._position:
            page = await asyncio.to_thread(self._events.after, after, PAGE)
            for event in page:
                if event.id > self._position:
                    break
                after = event.id
                if event.task_id not in known and event.number > 1:
                    for earlier in await asyncio.to_thread(self._events.of_task, event.task_id):
                        if earlier.id < event.id:
                            board.apply(earlier)  # already received by the client; not sent again
                known.add(event.task_id)
                for notice in board.apply(event):
                    missed_update = notice.topic is None and event.id <= connection.position_at_join
                    if notice.topic == topic or (topic == QUEUE_TOPIC and missed_update):
                        await connection.send(_encode(notice, connection.links))
            if not page:
                return

    async def _unsubscribe(self, connection: Connection, data: dict[str, Any]) -> None:
        topic = data.get("topic")
        if not isinstance(topic, str) or topic not in TOPICS:
            await self._complain(connection, f"Unknown topic. Use one of: {', '.join(TOPICS)}")
            return
        connection.topics.discard(topic)
        answer = {"topic": topic, "unsubscribed": True, "message": f"Unsubscribed from {topic}"}
        await connection.send(encode("unsubscription_response", self._position, answer))

    async def _ping(self, connection: Connection, data: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"message": "pong"}
        sent = data.get("timestamp")
        if _is_plain(sent):
            answer["timestamp"] = sent
        await connection.send(encode("pong", self._position, answer))

    async def _status(self, connection: Connection, data: dict[str, Any]) -> None:
        answer = {
            "connection_id": connection.id,
            "active_connections": self.active_connections,
            "subscriptions": {topic: topic in connection.topics for topic in TOPICS},
            "subscription_counts": self.subscription_counts(),
        }
        await connection.send(encode("status_response", self._position, answer))

    async def _complain(self, connection: Connection, sentence: str) -> None:
        await connection.send(encode("error", self._position, {"message": sentence, "timestamp": iso(utcnow())}))

    def _answer(self, connection: Connection, kind: str, data: dict[str, Any]) -> None:
        connection.offer(encode(kind, self._position, data))

    # --- to the clients ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            pause = self._settings.poll_seconds
            try:
                if await self._follow_once():
                    continue
            except WanError as error:
                log.warning("events.unreadable", code=error.code)
                pause = RETRY_SECONDS
            except Exception:  # the boundary of a loop that must live as long as the process
                log.exception("events.crashed")
                pause = RETRY_SECONDS
            await self._pause(pause)

    async def _follow_once(self) -> bool:
        """Publish one page of new events; return whether more may follow."""
        page = await asyncio.to_thread(self._events.after, self._position, PAGE)
        if not page:
            return False
        queue_changed = any(event.type is not EventType.PROGRESS for event in page)
        if queue_changed:
            self._counts, counted = await asyncio.to_thread(self._tasks.tally)
            # Events included in the counts are published before them, even those that occurred after the page was read.
            while page[-1].id < counted:
                more = await asyncio.to_thread(self._events.after, page[-1].id, PAGE)
                page += [event for event in more if event.id <= counted]
        for event in page:
            for notice in self._board.apply(event):
                self._publish_notice(notice, event.owner)
            self._position = event.id
        if queue_changed:
            await self._publish_queue()
        return len(page) >= PAGE

    async def _follow_pauses(self) -> None:
        """Tell clients when the queue is paused or resumed, by whichever process."""
        while not self._stopping.is_set():
            try:
                paused = await asyncio.to_thread(self._tasks.queue_is_paused)
            except WanError as error:
                log.warning("holds.unreadable", code=error.code)
            else:
                changed, self._paused = paused is not self._paused, paused
                if changed:
                    await self._publish_queue()
            await self._pause(PAUSES_SECONDS)

    async def _send_stats(self) -> None:
        while not self._stopping.is_set():
            await self._stats_wanted.wait()
            if not any(STATS_TOPIC in one.topics for one in self._connections.values()):
                self._stats_wanted.clear()
                continue
            try:
                reading = await asyncio.to_thread(self._stats.read)
            except Exception:  # the boundary of a loop that must live as long as the process
                log.exception("stats.crashed")
            else:
                data = system_stats(reading).model_dump(exclude_none=True)
                self._publish(STATS_TOPIC, encode("system_stats_update", self._position, data))
                for message in card_messages(reading.gpus) if self._counts.get(TaskStatus.PROCESSING) else ():
                    self._publish(STATS_TOPIC, encode(message[0], self._position, message[1]))
            await self._pause(self._settings.stats_seconds)

    async def _look(self) -> None:
        while not self._stopping.is_set():
            if self._watches is not None:
                await self._watches.look()
            await self._pause(WATCH_SECONDS)

    def _publish(self, topic: str | None, text: str) -> None:
        for connection in self._connections.values():
            if topic is None or topic in connection.topics:
                connection.offer(text)

    def _publish_notice(self, notice: Notice, owner: str | None) -> None:
        texts: dict[Links, str] = {}
        for connection in self._connections.values():
            if connection.sees(owner) and (notice.topic is None or notice.topic in connection.topics):
                if connection.links not in texts:
                    texts[connection.links] = _encode(notice, connection.links)
                connection.offer(texts[connection.links])

    async def _publish_queue(self) -> None:
        """Tell each subscriber how many of the tasks that it sees are in which state."""
        texts: dict[str | None, str] = {}
        for connection in list(self._connections.values()):
            if QUEUE_TOPIC not in connection.topics:
                continue
            confined_to = connection.caller.confined_to
            if confined_to not in texts:
                texts[confined_to] = self._queue_update(await self._counts_seen_by(connection.caller))
            connection.offer(texts[confined_to])

    async def _counts_seen_by(self, caller: Caller) -> dict[TaskStatus, int]:
        """Return the number of tasks in each state; of one that is confined, as of a moment without newer events."""
        while caller.confined_to is not None:
            position = self._position
            counts = await asyncio.to_thread(self._count, caller)
            if position == self._position:
                return counts
        return self._counts

    def _count(self, caller: Caller) -> dict[TaskStatus, int]:
        with acting_as(caller):
            return self._tasks.counts()

    def _queue_update(self, counts: dict[TaskStatus, int]) -> str:
        data = queue_counts(counts).model_dump() | {"paused": self._paused, "timestamp": iso(utcnow())}
        return encode("queue_update", self._position, data)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


@router.websocket("/ws")
@router.websocket("/api/v1/ws")
async def live(websocket: WebSocket) -> None:
    """Serve the topic protocol to one client."""
    manager: ConnectionManager = websocket.app.state.services.sockets
    await manager.serve(websocket)


def _encode(notice: Notice, links: Links) -> str:
    data = notice.data
    if "output_path" in data:
        data = data | {"output_path": links.to_media(data["output_path"])}
    return encode(notice.type, notice.event_id, data, flat=notice.topic is None)


async def _refuse_for_now(websocket: WebSocket) -> None:
    """Answer 503 to a socket that there is no room for; before the handshake a close code would read as 403."""
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(TOO_SLOW, "too many connections")
        return
    answer = error_answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        TooManyConnections.code,
        "All places for live updates are taken",
        scope=websocket.scope,
        suggestions=TooManyConnections.suggestions,
        headers={"Retry-After": "5"},
    )
    await websocket.send_denial_response(answer)


def _parse(text: str) -> dict[str, Any] | None:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _is_plain(value: object) -> bool:
    """Whether a value is safe to echo: a short string or a finite 64-bit number."""
    if isinstance(value, str):
        return len(value) <= 64
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 2**63
    )


@router.get("/api/v1/ws/stats", summary="Who listens over WebSocket", tags=["system"])
async def socket_stats(services: ServicesDep) -> SocketStats:
    """Count the WebSocket clients and their subscriptions."""
    sockets = services.sockets
    return SocketStats(
        active_connections=sockets.active_connections,
        subscription_counts=sockets.subscription_counts(),
        available_topics=list(TOPICS),
    )
