"""Turns the log back into the messages that clients have missed, page by page.

A page is read and folded once for all clients that ask for it, in a thread, and one page at a time: a crowd that
comes back after a restart waits for itself and not for each of its members, and nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backend.api.http.addressing import Links
from backend.api.live.messages import LiveMessage, Notice, encode
from backend.api.live.task_feed import TaskFeed
from backend.core.access.caller import OPERATOR, acting_as
from backend.core.domain import TaskEvent
from backend.store.events import EventLog

#: Events in a page, and pages that are kept while somebody needs them.
PAGE: Final = 250
KEPT_PAGES: Final = 8
#: Events that can be replayed; a client that missed more is better served by the state of now.
MAX_REPLAY: Final = 20_000


class News:
    """The messages of one event, each encoded once for all clients that see the same links."""

    __slots__ = ("_notices", "_texts", "event_id", "owner")

    def __init__(self, event: TaskEvent, notices: Sequence[Notice]) -> None:
        self.event_id = event.id
        self.owner = event.owner
        self._notices = notices
        self._texts: dict[tuple[int, bool, Links | None], LiveMessage] = {}

    def chosen(self, wanted: Callable[[str | None], bool], links: Links) -> list[LiveMessage]:
        """Return the messages whose topic is wanted; all but the last are marked as having more to follow."""
        places = [place for place, notice in enumerate(self._notices) if wanted(notice.topic)]
        return [self._message(place, place != places[-1], links) for place in places]

    def _message(self, place: int, more: bool, links: Links) -> LiveMessage:
        notice = self._notices[place]
        linked = "output_path" in notice.data
        key = place, more, links if linked else None
        found = self._texts.get(key)
        if found is None:
            data = notice.data
            if linked:
                data = data | {"output_path": links.to_media(data["output_path"])}
            found = encode(notice.type, self.event_id, data, flat=notice.topic is None, more=more)
            self._texts[key] = found
        return found


@dataclass(frozen=True, slots=True)
class _Page:
    upto: int  # the events are complete up to this number
    news: list[News]


class Replay:
    """The messages about past events."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._pages: OrderedDict[int, _Page] = OrderedDict()
        self._turn = asyncio.Lock()
        self._readers = 0

    async def between(self, after: int, upto: int) -> AsyncGenerator[News]:
        """Yield the messages of the events after one number, up to another one that has been read before.

        Raises:
            StoreFailed: the log cannot be read now.
        """
        self._readers += 1
        try:
            while after < upto:
                page = await self._page(after // PAGE, upto)
                for news in page.news:
                    if after < news.event_id <= upto:
                        yield news
                after = min(upto, (after // PAGE + 1) * PAGE)
                await asyncio.sleep(0)  # a page without a message for this client must not hold up the others
        finally:
            self._readers -= 1
            if not self._readers:
                self._pages.clear()

    async def _page(self, number: int, upto: int) -> _Page:
        needed = min(upto, (number + 1) * PAGE)
        async with self._turn:
            found = self._pages.get(number)
            if found is None or found.upto < needed:
                found = _Page(needed, await asyncio.to_thread(self._fold, number * PAGE, needed))
                self._pages[number] = found
            self._pages.move_to_end(number)
            while len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)
            return found

    def _fold(self, after: int, upto: int) -> list[News]:
        """Read a page, and what is needed from before it to know the state of its tasks.

        Whoever asks first, the page is for all: each client is sent what it may see of it.
        """
        with acting_as(OPERATOR):
            events = [event for event in self._log.after(after, PAGE) if event.id <= upto]
            earlier = self._log.before(after, {event.task_id for event in events if event.number > 1})
        feed = TaskFeed()
        for event in earlier:
            feed.apply(event)
        return [News(event, feed.apply(event)) for event in events]
