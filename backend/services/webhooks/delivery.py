"""Delivers messages to webhooks: a thread claims what is due, and each attempt has a thread of its own.

A receiver that does not answer holds up messages to its own host alone. Delivery is at least once: a message ends only
after its receiver has answered, so one whose process died in between is sent again, under the same id.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final

import structlog

from backend.core.errors.base import WanError
from backend.core.errors.requests import UrlNotAllowed
from backend.core.faults import fault_point
from backend.core.repeating import Repeating
from backend.services.outbound.connection import Aborted, Resolver, ask_name_server
from backend.services.outbound.exchange import SECONDS, Answer, PinnedCaller, Unanswered
from backend.services.outbound.targets import OutboundRules
from backend.services.webhooks.retries import Meaning, RetrySchedule, judge
from backend.services.webhooks.signing import ServerSecret, message_headers
from backend.store.clients.deliveries import Delivery, DeliveryStore

#: Attempts that are made at the same time, to all hosts and to one.
_AT_ONCE: Final = 8
_PER_HOST: Final = 2
_POLL_SECONDS: Final = 1.0
#: How long a stop waits for attempts, in seconds. Most end at once, but not one that waits for a connection.
_GRACE_SECONDS: Final = 2.0

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
    ) -> None:
        self._store = store
        self._secret = secret
        self._schedule = schedule or RetrySchedule()
        self._poll = Repeating("webhooks", self._send_all_due, _POLL_SECONDS)
        self._stopping = self._poll.stopping
        self._caller = PinnedCaller(rules, resolve=resolve, seconds=seconds, stopping=self._stopping.is_set)
        self._one_ended = threading.Event()
        self._sending: dict[threading.Thread, str] = {}

    def start(self) -> None:
        """Start delivering, beginning with what an earlier server of this home left."""
        self._store.release_all()
        self._poll.start()

    def stop(self) -> None:
        """Interrupt what is being sent; it is sent again after the next start, as an attempt that does not count."""
        self._stopping.set()
        self._one_ended.set()
        self._poll.stop()
        self.wait_until_sent(_GRACE_SECONDS)

    def send_due(self) -> int:
        """Begin to send what is due, as far as there is room; return how many messages that are.

        For one thread at a time.
        """
        self._sending = {thread: host for thread, host in self._sending.items() if thread.is_alive()}
        room = _AT_ONCE - len(self._sending)
        found = self._store.claim(room, Counter(self._sending.values()), _PER_HOST) if room else []
        for one in found:
            thread = threading.Thread(target=self._deliver, args=(one,), name=f"webhook {one.id}", daemon=True)
            self._sending[thread] = one.host
            thread.start()
        return len(found)

    def wait_until_sent(self, seconds: float) -> None:
        """Wait for what is being sent."""
        deadline = time.monotonic() + seconds
        for thread in list(self._sending):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _send_all_due(self) -> None:
        """Send while attempts end and more is due; a backlog does not wait for the next poll."""
        while not self._stopping.is_set():
            self._one_ended.clear()
            self.send_due()
            if not self._one_ended.wait(_POLL_SECONDS if self._sending else 0.0):
                return

    def _deliver(self, one: Delivery) -> None:
        try:
            self._attempt(one)
        except Aborted:
            self._store.release(one)
        except Exception:  # the boundary of the thread: the claim runs out, and the message is sent again
            log.exception("webhook.attempt_failed", delivery=one.id)
        finally:
            self._one_ended.set()

    def _attempt(self, one: Delivery) -> None:
        """Send a message once, and record the outcome."""
        try:
            keys = self._secret.keys_of(one.secret)
            headers = message_headers(keys, one.id, one.body)
            fault_point("webhook.before_send")
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
        meaning, reason = judge(answer)
        if meaning is Meaning.DELIVERED:
            self._store.delivered(one, answer.status)
        elif meaning is Meaning.GONE:
            self._give_up(one, reason, answer)
            self._store.unsubscribe(one, reason)
        else:
            self._put_off(one, reason, answer)

    def _put_off(self, one: Delivery, reason: str, answer: Answer | None) -> None:
        pause = self._schedule.pause(one.attempts, answer)
        if pause is None:
            self._give_up(one, f"given up after {one.attempts + 1} attempts: {reason}", answer)
        else:
            self._store.put_off(one, reason, None if answer is None else answer.status, pause)

    def _give_up(self, one: Delivery, reason: str, answer: Answer | None) -> None:
        self._store.give_up(one, reason, None if answer is None else answer.status)
        log.warning("webhook.given_up", delivery=one.id, task_id=one.task_id, host=one.host, reason=reason)
