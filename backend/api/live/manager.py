"""All clients of the live updates, and the loops that feed them: the event log, the queue, statistics, the system.

Follows the event log by number and keeps no state that could disagree with the database. Knows no transport.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

import structlog

from backend import __version__
from backend.api.live.connection import FAILED, GOING_AWAY, Connection, Transport
from backend.api.live.messages import PROGRESS_TOPIC, QUEUE_TOPIC, STATS_TOPIC, TOPICS, VERSION, LiveMessage, encode
from backend.api.live.queue_feed import QueueFeed
from backend.api.live.replay import MAX_REPLAY, News, Replay
from backend.api.live.standing import card_messages
from backend.api.live.task_feed import TaskFeed
from backend.api.live.watches import WATCH_SECONDS, Message, Watched, Watches
from backend.api.system.health import system_stats
from backend.core.access.caller import OPERATOR, acting_as
from backend.core.domain import TERMINAL, EventType, TaskStatus, iso, utcnow
from backend.core.errors.base import WanError
from backend.core.planning.hardware import Gpu
from backend.core.settings import Settings
from backend.services.system.host_stats import HostStats
from backend.store.events import EventLog
from backend.store.tasks import TaskStore

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 256
#: Events that are read at a time, and that are sent before full outboxes are waited for.
PAGE: Final = 500
BURST: Final = 16
#: How long a full outbox is waited for, in seconds, so that a burst makes no reader look slow.
BREATH_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 1.0
#: Interval between two looks at whether the queue is paused, in seconds.
PAUSES_SECONDS: Final = 0.5
#: Interval between signs of life, in seconds: shorter than proxies keep a silent connection.
HEARTBEAT_SECONDS = 15.0
#: Interval between two messages about the memory of the cards, in seconds.
CARDS_SECONDS: Final = 1.0


class ConnectionManager:
    """All clients of this process and the loops that feed them. Bound to one event loop."""

    def __init__(self, settings: Settings, tasks: TaskStore, events: EventLog, stats: HostStats) -> None:
        self._settings = settings
        self._tasks = tasks
        self._events = events
        self._stats = stats
        self._replay = Replay(events)
        self._connections: dict[str, Connection] = {}
        self._board = TaskFeed()
        self._queue = QueueFeed(tasks)
        self._position = 0
        self._stats_wanted = asyncio.Event()
        self._watches: Watches | None = None
        self._watched: frozenset[str] = frozenset()
        self._stopping = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._event_loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Load the state of the queue and start following the event log."""
        self._event_loop = asyncio.get_running_loop()
        # Counts first: events that occur before the tasks are read are then folded twice, which is harmless.
        self._position = await self._queue.read()
        active = [status for status in TaskStatus if status not in TERMINAL]
        lists = [await asyncio.to_thread(self._tasks.list, status) for status in active]
        self._board = TaskFeed(sorted((task for tasks in lists for task in tasks), key=lambda task: task.created_at))
        while await self._follow_once():
            pass
        loops = (self._follow, self._follow_pauses, self._send_stats, self._look, self._send_heartbeats)
        self._loops = [asyncio.create_task(loop()) for loop in loops]

    async def stop(self) -> None:
        """Disconnect every client and end the loops; a second call does nothing."""
        self._event_loop = None
        self._stopping.set()
        self._stats_wanted.set()
        for connection in self._connections.values():
            connection.let_go(GOING_AWAY, "the server stops")
        await asyncio.gather(*self._loops)

    @property
    def is_full(self) -> bool:
        """Whether no client can be taken now."""
        return len(self._connections) >= MAX_CONNECTIONS or self._stopping.is_set()

    async def attend(
        self,
        transport: Transport,
        listen: Callable[[Connection], Awaitable[None]],
        *,
        topics: Sequence[str] = (),
        since: int | None = None,
    ) -> None:
        """Serve one client until either side disconnects.

        Args:
            transport: carries the messages.
            listen: reads what the client says, and returns once it has disconnected.
            topics: what it gets from the start.
            since: number of the event after which it gets everything; None = from now on.
        """
        connection = Connection(self._position if since is None else since)
        connection.behind = since is not None
        self._connections[connection.id] = connection
        welcome = {
            "connection_id": connection.id,
            "available_topics": list(TOPICS),
            "message": "Connected",
            "protocol_version": VERSION,
            "server_version": __version__,
        }
        connection.offer(encode("connection_established", connection.position, welcome))

        async def read() -> None:
            try:
                await self._begin(connection, topics, since)
                await listen(connection)
            except WanError as error:
                log.warning("events.not_replayed", code=error.code)
                connection.let_go(FAILED, "the event log cannot be read now; connect again")

        try:
            await connection.run(transport, read)
        finally:
            del self._connections[connection.id]

    def watch(self, watched: Watched) -> None:
        """Name what is looked at while somebody subscribes; before `start`."""
        self._watches = Watches(watched, self._connections, _answer)
        self._watched = frozenset(watched)

    def publish(self, topic: str | None, kind: str, data: dict[str, Any]) -> None:
        """Publish a message that is not about an event; None = to everybody. Thread-safe; dropped before `start`."""
        loop = self._event_loop
        if loop is not None:
            loop.call_soon_threadsafe(lambda: self._publish(topic, kind, data))

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

    # --- what a client asks for --------------------------------------------------------------------------

    async def _begin(self, connection: Connection, topics: Sequence[str], since: int | None) -> None:
        """Send a new client what it has missed, or the state of now."""
        if since is None:
            await self.subscribe(connection, topics)
            return
        replayable = await self._tell_gap(connection, since)
        if replayable:
            connection.topics.update(topics)
            await self._advance(connection)
        else:
            connection.position, connection.behind = self._position, False
        for topic in topics:
            await self._introduce(connection, topic, snapshot=not replayable)
        connection.offer(self._state("replay_complete", connection, since=since))

    async def subscribe(self, connection: Connection, topics: Sequence[str], since: int | None = None) -> None:
        """Send a client the messages of topics from now on, and before them what it has missed since an event.

        Raises:
            StoreFailed: the log cannot be read now.
        """
        for topic in topics:
            answer = {"topic": topic, "subscribed": True, "message": f"Subscribed to {topic}"}
            await connection.send(encode("subscription_response", connection.position, answer))
        replayable = since is not None and await self._tell_gap(connection, since)
        if since is not None and replayable:
            connection.behind = True
            await self._repeat(connection, topics, since)
            connection.topics.update(topics)
            await self._advance(connection)
        for topic in topics:
            await self._introduce(connection, topic, snapshot=not replayable)
        if since is not None:
            connection.offer(self._state("replay_complete", connection, since=since))

    async def _introduce(self, connection: Connection, topic: str, *, snapshot: bool) -> None:
        """Begin a topic with the state of now; `snapshot` where the messages so far do not tell it."""
        if self._watches is not None and topic in self._watched:
            await self._watches.welcome(connection, topic)
            return
        # Nothing awaits before the topic is added, so no event can slip between the snapshot and the live messages.
        if topic == PROGRESS_TOPIC and snapshot:
            for notice in self._board.snapshot(connection.caller.confined_to):
                connection.offer(encode(notice.type, connection.position, notice.data | {"snapshot": True}))
        connection.topics.add(topic)
        if topic == QUEUE_TOPIC:
            numbers = await self._queue.numbers(connection.caller)
            connection.offer(encode("queue_update", connection.position, numbers))
        if topic == STATS_TOPIC:
            self._stats_wanted.set()

    async def _tell_gap(self, connection: Connection, since: int) -> bool:
        """Return whether the events after `since` can be replayed, and tell the client where not all of them can."""
        position = self._position
        if since > position:
            # Another server of the same database may be ahead of this one.
            if await asyncio.to_thread(_unconfined, self._events.after, since - 1, 1):
                return True
            self._gap(connection, since, "unknown_event", position, "This log has not come so far: it was restored")
            return False
        if position - since > MAX_REPLAY:
            oldest = position - MAX_REPLAY
            self._gap(connection, since, "too_far_back", oldest, f"At most {MAX_REPLAY} events are sent again")
            return False
        removed = await asyncio.to_thread(self._events.removed_upto, since)
        if removed > since:
            self._gap(connection, since, "removed", removed, f"Old events up to number {removed} were deleted")
        return True

    def _gap(self, connection: Connection, since: int, reason: str, oldest: int, sentence: str) -> None:
        data = {"since": since, "reason": reason, "oldest_event": oldest, "message": sentence}
        connection.offer(self._state("replay_gap", connection, **data))

    async def _repeat(self, connection: Connection, topics: Sequence[str], since: int) -> None:
        """Send messages of topics again, up to where the client is, at its own speed.

        With the queue come the changes of state from before it connected, which it had no chance to get.
        """
        updates = QUEUE_TOPIC in topics
        async with aclosing(self._replay.between(since, connection.position)) as missed:
            async for news in missed:
                new = updates and news.event_id <= connection.updates_from
                wanted = {*topics, None} if new else {*topics}
                if connection.sees(news.owner):
                    for message in news.chosen(wanted.__contains__, connection.links):
                        await connection.send(message)
        if updates:
            connection.updates_from = min(since, connection.updates_from)

    async def _advance(self, connection: Connection) -> None:
        """Send everything between where the client is and now, at its own speed; from then on it gets live messages."""
        while connection.position < self._position:
            upto = self._position
            async with aclosing(self._replay.between(connection.position, upto)) as missed:
                async for news in missed:
                    if connection.sees(news.owner):
                        for message in news.chosen(connection.wants, connection.links):
                            await connection.send(message)
                    connection.position = news.event_id
            connection.position = upto
        connection.behind = False

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
            counted = await self._queue.read()
            # Events included in the counts are published before them, even those that occurred after the page was read.
            while page[-1].id < counted:
                found = await asyncio.to_thread(self._events.after, page[-1].id, PAGE)
                more = [event for event in found if event.id <= counted]
                if not more:
                    break  # it was deleted with its task meanwhile
                page += more
        for number, event in enumerate(page):
            self._publish_news(News(event, self._board.apply(event)))
            self._position = event.id
            if number % BURST == BURST - 1:
                await self._breathe()
        if queue_changed:
            await self._publish_queue()
        return len(page) >= PAGE

    async def _breathe(self) -> None:
        """Let the readers read, and wait a moment for those whose outboxes fill up."""
        full = any(connection.half_full for connection in self._connections.values())
        await asyncio.sleep(BREATH_SECONDS if full else 0)

    async def _follow_pauses(self) -> None:
        """Tell clients when the queue is paused or resumed, by whichever process."""
        while not self._stopping.is_set():
            try:
                if await self._queue.pause_changed():
                    await self._publish_queue()
            except WanError as error:
                log.warning("holds.unreadable", code=error.code)
            await self._pause(PAUSES_SECONDS)

    async def _send_stats(self) -> None:
        cards_at = -math.inf
        while not self._stopping.is_set():
            await self._stats_wanted.wait()
            if not self._has_subscribers(STATS_TOPIC):
                self._stats_wanted.clear()
                continue
            try:
                reading = await asyncio.to_thread(self._stats.read)
            except Exception:  # the boundary of a loop that must live as long as the process
                log.exception("stats.crashed")
            else:
                data = system_stats(reading).model_dump(exclude_none=True)
                self._publish(STATS_TOPIC, "system_stats_update", data)
                running = self._board.running()
                if running and time.monotonic() - cards_at >= CARDS_SECONDS:
                    cards_at = time.monotonic()
                    self._publish_cards(reading.gpus, running)
            await self._pause(self._settings.stats_seconds)

    async def _look(self) -> None:
        """Look at what is in no log: models, health, downloads that wait, the use of the models."""
        while not self._stopping.is_set():
            if self._watches is not None:
                await self._watches.look()
            await self._pause(WATCH_SECONDS)

    async def _send_heartbeats(self) -> None:
        while not self._stopping.is_set():
            await self._pause(HEARTBEAT_SECONDS)
            self._publish(None, "heartbeat", {"timestamp": iso(utcnow())}, flat=False)

    def _has_subscribers(self, topic: str) -> bool:
        return any(topic in one.topics for one in self._connections.values())

    def _publish_news(self, news: News) -> None:
        for connection in self._connections.values():
            if not connection.behind and connection.position < news.event_id:
                if connection.sees(news.owner):
                    for message in news.chosen(connection.wants, connection.links):
                        connection.offer(message)
                connection.position = news.event_id

    async def _publish_queue(self) -> None:
        """Tell each subscriber how many of the tasks that it sees are in which state."""
        numbers: dict[str | None, dict[str, Any]] = {}
        for connection in [one for one in self._connections.values() if QUEUE_TOPIC in one.topics]:
            confined_to = connection.caller.confined_to
            if confined_to not in numbers:
                numbers[confined_to] = await self._queue.numbers(connection.caller)
            connection.offer(encode("queue_update", connection.position, numbers[confined_to]))

    def _publish_cards(self, cards: Sequence[Gpu], running: Mapping[str, str | None]) -> None:
        """Tell of the memory of the cards, and of the task that uses it only those who may see that task."""
        only = min(running) if len(running) == 1 else None
        clients = self._connections.values()
        aware = [one for one in clients if only is None or one.sees(running[only])]
        unaware = [one for one in clients if one not in aware]
        for to, task_id in ((aware, only), (unaware, None)):
            for kind, data in card_messages(cards, task_id):
                self._publish(STATS_TOPIC, kind, data, to=to)

    def _publish(
        self,
        topic: str | None,
        kind: str,
        data: dict[str, Any],
        *,
        flat: bool | None = None,
        to: Collection[Connection] | None = None,
    ) -> None:
        texts: dict[int, LiveMessage] = {}
        for connection in self._connections.values() if to is None else to:
            if connection.wants(topic):
                at = connection.position
                if at not in texts:
                    texts[at] = encode(kind, at, data, flat=topic is None if flat is None else flat)
                connection.offer(texts[at])

    def _state(self, kind: str, connection: Connection, **data: Any) -> LiveMessage:
        return encode(kind, connection.position, data | {"timestamp": iso(utcnow())})

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def _answer(connection: Connection, message: Message) -> None:
    kind, data = message
    connection.offer(encode(kind, connection.position, data))


def _unconfined(work: Callable[..., _T], *args: object) -> _T:
    """Look at what is there for all clients, whichever of them was the first to want it."""
    with acting_as(OPERATOR):
        return work(*args)
