"""Messages to webhooks: signed, repeated under one id, given up visibly; no receiver can do more than lose its own."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from backend.core.domain import Task, TaskStatus, WebhookEvent, new_task_id
from backend.core.errors.surroundings import BadSettings
from backend.core.requests.webhooks import Webhook
from backend.core.settings import load_settings
from backend.services.outbound.connection import Resolver, ask_name_server
from backend.services.outbound.targets import IpAddress, OutboundRules
from backend.services.webhooks.delivery import WebhookSender
from backend.services.webhooks.retries import RetrySchedule
from backend.services.webhooks.signing import ServerSecret, new_secret
from backend.store.clients.deliveries import DeliveryState, DeliveryStore
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.services.webhooks.receiver import OK, Receiver
from tests.store.samples import claimed, output_of, submit
from tests.support.server import wait_for

RULES = OutboundRules(("127.0.0.1",), (ipaddress.ip_network("127.0.0.0/8"),))
AT_ONCE = RetrySchedule((0.0, 0.0))
SECRET = new_secret()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Office:
    """The database of a home, its tasks and its messages."""

    def __init__(self, home: Path, place: str | None = None) -> None:
        home.mkdir(exist_ok=True)
        self.settings = load_settings(home=home)
        self.database = Database(place or home / "wan22.db")
        self.database.migrate()
        self.tasks, self.store = TaskStore(self.database), DeliveryStore(self.database, "home")
        self.secret = ServerSecret(self.settings, self.settings.paths)

    def sender(
        self,
        schedule: RetrySchedule = AT_ONCE,
        seconds: float = 2.0,
        rules: OutboundRules = RULES,
        resolve: Resolver = ask_name_server,
    ) -> WebhookSender:
        return WebhookSender(self.store, rules, self.secret, schedule=schedule, seconds=seconds, resolve=resolve)

    def finish(self, hook: Webhook) -> Task:
        task = submit(self.tasks, webhook=hook)
        _, token = claimed(self.tasks)
        self.tasks.complete(task.id, token, output_of(task.id))
        return task

    def send(self, sender: WebhookSender) -> int:
        count = sender.send_due()
        sender.wait_until_sent(20)
        return count


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "home")
    yield made
    made.database.close()


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_messages_are_signed_as_standard_webhooks_are(
    place: str, tmp_path: Path, receiver: Receiver, request: pytest.FixtureRequest
) -> None:
    office = Office(tmp_path / "home", None if place == "sqlite" else request.getfixturevalue("new_postgres")())
    task = office.finish(Webhook(receiver.url, (WebhookEvent.STARTED, WebhookEvent.COMPLETED), SECRET))
    assert office.send(office.sender()) == 2
    assert [one.state for one in office.store.list()] == [DeliveryState.DELIVERED] * 2
    messages = [Verifier(SECRET).verify(body, headers) for headers, body in receiver.requests]
    messages.sort(key=lambda message: message["data"]["event"])
    assert [message["type"] for message in messages] == ["task.started", "task.completed"]
    assert {message["data"]["task_id"] for message in messages} == {task.id}
    assert messages[1]["data"]["video"]["url"] == f"/api/v1/outputs/{task.id}/download"
    assert "prompt" not in json.dumps(messages)
    headers, body = receiver.requests[0]
    for changed in (body + b" ", body.replace(b"task.", b"tusk.")):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(changed, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(body, headers)
    office.database.close()


def test_a_secret_of_the_server_is_replaced_without_a_gap(office: Office, receiver: Receiver) -> None:
    [first] = office.secret.texts()
    assert office.settings.paths.webhook_secret_file.stat().st_mode & 0o777 == 0o600
    second = office.secret.rotate()
    office.finish(Webhook(receiver.url))
    office.send(office.sender())
    for secret in (first, second):
        Verifier(secret).verify(receiver.requests[-1][1], receiver.requests[-1][0])
    third = office.secret.rotate()
    assert office.secret.texts() == [third, second]
    assert office.settings.paths.webhook_secret_file.stat().st_mode & 0o777 == 0o600


def test_34_a_receiver_that_fails_is_asked_again_and_given_up_visibly(
    office: Office, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answer = lambda: [b"HTTP/1.1 500 Oh\r\n\r\nprivate words"]
    task = office.finish(Webhook(receiver.url + "?token=hidden", secret=SECRET))
    sender = office.sender()
    assert [office.send(sender) for _ in range(4)] == [1, 1, 1, 0]
    assert office.tasks.get(task.id).status is TaskStatus.COMPLETED
    [dead] = office.store.list(states=(DeliveryState.FAILED,))
    assert (dead.attempts, dead.status, dead.task_id) == (3, 500, task.id)
    assert dead.reason == "given up after 3 attempts: the receiver answered 500"
    ids = {headers["webhook-id"] for headers, _ in receiver.requests}
    assert ids == {dead.id}
    receiver.answer = lambda: [OK]
    office.store.redeliver(dead.id)
    assert office.send(sender) == 1
    assert office.store.get(dead.id).state is DeliveryState.DELIVERED
    assert receiver.requests[-1][0]["webhook-id"] == dead.id
    printed = "".join(capsys.readouterr())
    assert SECRET not in printed + repr(dead)
    assert "hidden" not in printed + repr(dead)


def test_a_message_to_nobody_waits_for_its_next_attempt(office: Office, receiver: Receiver) -> None:
    receiver.close()
    office.finish(Webhook(receiver.url))
    sender = office.sender(RetrySchedule((60.0,)))
    assert [office.send(sender) for _ in range(2)] == [1, 0]
    [waiting] = office.store.list()
    assert (waiting.state, waiting.attempts, waiting.reason) == (DeliveryState.PENDING, 1, "no connection")
    pause = (waiting.due_at - waiting.created_at).total_seconds()
    assert 40 < pause < 90


def _endless(part: bytes, pause: float = 0.0) -> Iterable[bytes]:
    for _ in itertools.count():
        time.sleep(pause)  # the receiver's own slowness
        yield part


def _bomb() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1000000000\r\n\r\n"
    packed = zlib.compressobj(wbits=31)
    yield packed.compress(bytes(10**7)) + packed.flush()


HOSTILE = {
    "10 MB of headers": (lambda: [b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 10_000], "too large"),
    "one endless header": (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], _endless(b"a" * 9999)), "too large"),
    "endless headers": (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], _endless(b"X-A: b\r\n" * 50)), ""),
    "a slow head": (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], _endless(b"X", 0.05)), "no answer in time"),
    "no HTTP": (lambda: [b"SSH-2.0-OpenSSH_9.9\r\n"], "not HTTP"),
    "nothing": (list, "breaks off"),
    "a redirect to loopback": (
        lambda: [b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:{port}/admin\r\n\r\n"],
        "redirects are not followed",
    ),
    "a redirect to metadata": (
        lambda: [b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n"],
        "redirects are not followed",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_receiver_ends_its_own_message_alone(office: Office, receiver: Receiver, kind: str) -> None:
    answer, reason = HOSTILE[kind]
    other = Receiver()
    receiver.answer = lambda: (part.replace(b"{port}", str(other.port).encode()) for part in answer())
    office.finish(Webhook(receiver.url))
    began = time.monotonic()
    office.send(office.sender(RetrySchedule(()), seconds=0.6))
    assert time.monotonic() - began < 10
    [dead] = office.store.list()
    assert (dead.state, other.requests) == (DeliveryState.FAILED, [])
    assert reason in str(dead.reason)
    assert receiver.sent < 4_000_000  # nothing reads on: only what the system buffers was taken
    other.close()


@pytest.mark.parametrize(
    "body", [_bomb, lambda: itertools.chain([OK[:-2] + b"\r\n"], _endless(b"x", 0.05))], ids=["gzip bomb", "slow body"]
)
def test_the_body_of_an_answer_is_not_read(office: Office, receiver: Receiver, body: object) -> None:
    receiver.answer = body  # type: ignore[assignment]
    office.finish(Webhook(receiver.url))
    began = time.monotonic()
    office.send(office.sender(seconds=5))
    assert time.monotonic() - began < 4
    assert [one.state for one in office.store.list()] == [DeliveryState.DELIVERED]


def test_a_receiver_that_has_gone_is_told_no_more(office: Office, receiver: Receiver) -> None:
    receiver.answer = lambda: [b"HTTP/1.1 410 Gone\r\n\r\n"]
    task = submit(office.tasks, webhook=Webhook(receiver.url, (WebhookEvent.STARTED, WebhookEvent.COMPLETED)))
    _, token = claimed(office.tasks)
    office.send(office.sender())
    office.tasks.complete(task.id, token, output_of(task.id))
    assert (office.send(office.sender()), len(receiver.requests)) == (0, 1)


def test_a_stop_interrupts_an_attempt_that_does_not_count(office: Office, receiver: Receiver) -> None:
    released = threading.Event()
    receiver.answer = lambda: [OK] if released.wait(20) else []
    office.finish(Webhook(receiver.url))
    sender = office.sender(seconds=20.0)
    sender.start()
    wait_for(lambda: receiver.requests, what="the request")
    began = time.monotonic()
    sender.stop()
    assert time.monotonic() - began < 10
    released.set()
    [waiting] = office.store.list()
    assert (waiting.state, waiting.attempts, waiting.claim) == (DeliveryState.PENDING, 0, None)
    assert office.send(office.sender()) == 1
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1


def test_a_backlog_is_sent_without_a_pause_for_each_message(office: Office, receiver: Receiver) -> None:
    for _ in range(30):
        office.finish(Webhook(receiver.url))
    sender = office.sender()
    sender.start()
    wait_for(lambda: office.store.counts()[DeliveryState.DELIVERED] == 30, seconds=30, what="delivery")
    sender.stop()
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == len(receiver.requests) == 30


def test_a_receiver_that_never_answers_holds_up_no_other(office: Office, receiver: Receiver) -> None:
    released, silent = threading.Event(), Receiver("127.0.0.2")
    silent.answer = lambda: [OK] if released.wait(30) else []
    for _ in range(9):
        office.finish(Webhook(silent.url))
    office.finish(Webhook(receiver.url))
    rules = OutboundRules(("127.0.0.1", "127.0.0.2"), RULES.networks)
    sender = office.sender(seconds=20.0, rules=rules)
    sender.start()
    wait_for(lambda: receiver.requests, what="the message to the other receiver")
    released.set()
    sender.stop()
    silent.close()


def test_a_name_is_resolved_and_checked_at_every_attempt(office: Office, receiver: Receiver) -> None:
    inner = OutboundRules(("flip.example",), (ipaddress.ip_network("127.0.0.1/32"),))
    answers = iter(["169.254.169.254", "127.0.0.1", "10.0.0.1"])

    def resolve(_host: str, _port: int) -> tuple[IpAddress, ...]:
        return (ipaddress.ip_address(next(answers)),)

    office.finish(Webhook(f"http://flip.example:{receiver.port}/"))
    sender = office.sender(rules=inner, resolve=resolve)
    assert office.send(sender) == 1
    [refused] = office.store.list()
    assert (refused.state, receiver.requests) == (DeliveryState.PENDING, [])
    assert refused.reason == "The host of the address is not in a network that this server may call"
    assert office.send(sender) == 1
    assert office.store.get(refused.id).state is DeliveryState.DELIVERED
    assert receiver.requests[0][0]["host"] == f"flip.example:{receiver.port}"
    office.store.redeliver(refused.id)
    office.send(sender)
    assert len(receiver.requests) == 1


def test_a_name_server_that_does_not_answer_costs_no_more_time_than_a_receiver(office: Office) -> None:
    released = threading.Event()

    def resolve(_host: str, _port: int) -> tuple[IpAddress, ...]:
        released.wait(30)
        raise OSError

    office.finish(Webhook("http://slow.example/"))
    began = time.monotonic()
    office.send(office.sender(seconds=0.5, rules=OutboundRules(("*",)), resolve=resolve))
    assert time.monotonic() - began < 10
    released.set()
    assert [one.reason for one in office.store.list()] == ["no connection in time"]


def test_a_host_that_is_not_allowed_any_more_is_given_up_at_once(office: Office, receiver: Receiver) -> None:
    office.finish(Webhook(receiver.url))
    office.send(office.sender(rules=OutboundRules(())))
    [dead] = office.store.list()
    assert (dead.state, dead.reason) == (DeliveryState.FAILED, "This server calls no addresses that clients name")
    office.store.redeliver(dead.id)
    office.send(office.sender())
    assert office.store.get(dead.id).state is DeliveryState.DELIVERED


def test_without_a_usable_secret_nothing_is_sent_unsigned(office: Office, receiver: Receiver) -> None:
    file = office.settings.paths.webhook_secret_file
    for content in (b"", b"whsec_tiny\n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(BadSettings, match=r"webhook\.secret in the home folder"):
            office.secret.texts()
    office.finish(Webhook(receiver.url))
    office.send(office.sender())
    [waiting] = office.store.list()
    assert (waiting.state, waiting.attempts, receiver.requests) == (DeliveryState.PENDING, 1, [])
    file.unlink()
    office.send(office.sender())
    [(headers, body)] = receiver.requests
    Verifier(office.secret.texts()[0]).verify(body, headers)


def test_two_processes_that_make_the_secret_have_the_same(office: Office) -> None:
    found: list[list[str]] = []
    barrier = threading.Barrier(6)

    def ask() -> None:
        secret = ServerSecret(office.settings, office.settings.paths)
        barrier.wait(20)
        found.append(secret.texts())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 6
    assert len({one for texts in found for one in texts}) == 1


@pytest.mark.parametrize(("point", "times"), [("finish.after_commit", 1), ("webhook.after_send", 2)])
def test_a_server_that_is_killed_sends_after_its_restart(
    office: Office, receiver: Receiver, point: str, times: int
) -> None:
    task_id = new_task_id()
    submit(office.tasks, task_id=task_id, webhook=Webhook(receiver.url, secret=SECRET))
    program = [sys.executable, "-m", "tests.services.programs.finish_and_send", str(office.settings.paths.root)]
    env = os.environ | {"WAN22_FAULTS": f"{point}=kill"}
    assert subprocess.run([*program, task_id], env=env, timeout=60, check=False).returncode == -9
    assert len(receiver.requests) == times - 1
    again = office.sender()
    office.store.release_all()
    assert [office.send(again), office.send(again)] == [1, 0]
    assert len(receiver.requests) == times
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    for headers, body in receiver.requests:
        Verifier(SECRET).verify(body, headers)
    assert [one.state for one in office.store.list()] == [DeliveryState.DELIVERED]
