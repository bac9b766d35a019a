"""Delivers messages to webhooks: a thread that claims what is due, and a few that send it.

Whoever does not answer is waited for by one or two of them, never by all. At least once: a message is ended only after
its receiver has answered, so a process that dies in between leaves it to be sent again, with the same id.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

import structlog

from backend import __version__
from backend.core.errors.base import WanError
from backend.core.errors.requests import UrlNotAllowed
from backend.core.faults import fault_point
from backend.core.repeating import Repeating
from backend.services.outbound.connection import Aborted, Resolver, ask_name_server
from backend.services.outbound.exchange import SECONDS, Answer, PinnedCaller, Unanswered
from backend.services.outbound.targets import OutboundRules
from backend.services.webhooks.retries import Meaning, RetrySchedule, judge
from backend.services.webhooks.signing import ServerSecret, key_of, signed_headers
from backend.store.clients.deliveries import Delivery, DeliveryStore

#: Messages that are sent at the same time, of all webhooks and of one host.
_AT_ONCE: Final = 8
_PER_HOST: Final = 2
_LOOK_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class WebhookSender:
    """The threads; started and stopped with the server."""

    def __init__(
        self,
        store: DeliveryStore,
        rules: OutboundRules,
        secret: ServerSecret,
        *,
        resolve: Resolver = ask_name_server,
        schedule: RetrySchedule | None = None,
        seconds: float = SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._store = store
        self._secret = secret
        self._schedule = schedule or RetrySchedule()
        self._thread = Repeating("webhooks", self.send_due, look_seconds)
        stopping = self._thread.stopping.is_set
        self._caller = PinnedCaller(rules, resolve=resolve, seconds=seconds, stopping=stopping)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook")
        self._lock = threading.Lock()
        self._sending: dict[Future[None], str] = {}

    def start(self) -> None:
        """Start delivering, also what an earlier server of this home did not end."""
        self._store.release_all()
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what is being sent; it is sent again after the next start."""
        self._thread.stop()
        self._pool.shutdown(cancel_futures=True)

    def send_due(self) -> int:
        """Begin to send what is due, as far as there is room; return how many messages that are."""
        with self._lock:
            self._sending = {future: host for future, host in self._sending.items() if not future.done()}
            busy = Counter(self._sending.values())
            room = _AT_ONCE - len(self._sending)
        found = self._store.claim(room, busy, _PER_HOST) if room else []
        with self._lock:
            self._sending |= {self._pool.submit(self._deliver, one): one.host for one in found}
        return len(found)

    def wait_until_sent(self, seconds: float) -> None:
        """Wait for what is being sent."""
        with self._lock:
            sending = list(self._sending)
        wait(sending, seconds)

    def _deliver(self, one: Delivery) -> None:
        try:
            self._attempt(one)
        except Aborted:
            self._store.release(one)
        except Exception:  # the boundary of the thread: the claim runs out, and the message is sent again
            log.exception("webhook.attempt_failed", delivery=one.id)

    def _attempt(self, one: Delivery) -> None:
        """Send a message once, and note what became of it."""
        try:
            keys = [key_of(one.secret)] if one.secret is not None else self._secret.keys()
            stamp = signed_headers(keys, one.id, int(time.time()), one.body)
            headers = {"Content-Type": "application/json", "User-Agent": f"wan22/{__version__}", **stamp}
            answer = self._caller.post(one.url, one.body.encode(), headers)
        except UrlNotAllowed as error:
            self._give_up(one, error.message, None)
            return
        except WanError as error:  # the secret of the server cannot be used
            self._put_off(one, error.message, None)
            return
        except Unanswered as error:
            self._put_off(one, str(error), None)
            return
        fault_point("webhook.after_send")
        verdict, reason = judge(answer)
        if verdict is Meaning.DELIVERED:
            self._store.delivered(one, answer.status)
        elif verdict is Meaning.GONE:
            self._give_up(one, reason, answer)
            self._store.unsubscribe(one, reason)
        else:
            self._put_off(one, reason, answer)

    def _put_off(self, one: Delivery, reason: str, answer: Answer | None) -> None:
        pause = self._schedule.pause(one.attempts, one.seconds_tried, answer)
        if pause is None:
            self._give_up(one, f"given up after {one.attempts + 1} attempts: {reason}", answer)
        else:
            self._store.put_off(one, reason, None if answer is None else answer.status, pause)

    def _give_up(self, one: Delivery, reason: str, answer: Answer | None) -> None:
        self._store.give_up(one, reason, None if answer is None else answer.status)
        log.warning("webhook.given_up", delivery=one.id, task_id=one.task_id, host=one.host, reason=reason)
