"""`wan22 webhooks` lists what was given up, sends it again, and shows and replaces the secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from standardwebhooks import Webhook as StandardWebhook

from backend.core.requests.webhooks import Webhook
from backend.services.webhooks.retries import RetrySchedule
from backend.store.clients.deliveries import DeliveryState
from tests.commands.support import invoke
from tests.services.webhooks.receiver import Receiver
from tests.services.webhooks.test_delivery import Office
from tests.support.server import LiveServer, wait_for


def run(home: Path, *words: str) -> str:
    done = invoke("webhooks", *words, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_was_given_up_is_listed_and_sent_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    office = Office(home)
    office.finish(Webhook("http://127.0.0.2:1/?token=hidden"))
    office.send(office.sender(RetrySchedule(())))  # that host is not allowed: given up
    [dead] = json.loads(run(home, "list", "--failed", "--json"))
    assert (dead["host"], dead["state"]) == ("127.0.0.2", "failed")
    table = run(home, "list")
    assert dead["id"] in table
    shown = run(home, "show", dead["id"], "--json")
    assert json.loads(shown)["body"]["type"] == "task.completed"
    text = run(home, "show", dead["id"])
    assert "host: 127.0.0.2" in text
    assert "hidden" not in table + shown + text
    assert run(home, "redeliver", dead["id"]) == "1 message will be sent again.\n"
    assert office.store.get(dead["id"]).state is DeliveryState.PENDING
    assert json.loads(run(home, "list", "--failed", "--json")) == []
    assert run(home, "redeliver", "--failed") == "0 messages will be sent again.\n"
    office.send(office.sender(RetrySchedule(())))
    [again] = json.loads(run(home, "redeliver", "--failed", "--json"))
    assert again["id"] == dead["id"]
    office.database.close()


def test_the_secret_is_shown_and_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    [first] = run(home, "secret").split()
    second = run(home, "rotate").strip()
    assert second != first
    assert run(home, "secret").split() == [second, first]
    third = json.loads(run(home, "rotate", "--json"))["secret"]
    assert json.loads(run(home, "secret", "--json")) == [third, second]


def test_an_address_is_tried_with_a_signed_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, receiver = tmp_path / "home", Receiver()
    refused = invoke("webhooks", "test", receiver.url, home=home)
    assert refused.returncode == 1
    assert "WAN22_OUTBOUND_HOSTS" in refused.stderr
    assert receiver.requests == []
    monkeypatch.setenv("WAN22_OUTBOUND_HOSTS", '["127.0.0.1"]')
    monkeypatch.setenv("WAN22_OUTBOUND_NETWORKS", '["127.0.0.0/8"]')
    assert "the receiver answered 200" in run(home, "test", receiver.url)
    [(headers, body)] = receiver.requests
    [secret] = run(home, "secret").split()
    message = StandardWebhook(secret).verify(body, headers)
    assert message["type"] == "webhook.test"
    own = "whsec_" + "QUJD" * 10
    tried = json.loads(run(home, "test", receiver.url, "--secret", own, "--json"))
    assert (tried["delivered"], tried["status"], tried["id"]) == (True, 200, receiver.requests[1][0]["webhook-id"])
    StandardWebhook(own).verify(receiver.requests[1][1], receiver.requests[1][0])
    receiver.answer = lambda: [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"]
    lost = invoke("webhooks", "test", receiver.url, home=home)
    assert (lost.returncode, "redirects are not followed" in lost.stdout) == (1, True)
    receiver.close()
    gone = json.loads(invoke("webhooks", "test", receiver.url, "--json", home=home).stdout)
    assert (gone["delivered"], gone["status"], gone["reason"]) == (False, None, "no connection")


def test_commands_that_make_videos_name_a_webhook(tmp_path: Path) -> None:
    server = LiveServer(
        tmp_path / "home",
        WAN22_OUTBOUND_HOSTS='["127.0.0.1"]',
        WAN22_OUTBOUND_NETWORKS='["127.0.0.0/8"]',
    )
    receiver = Receiver()
    try:
        quick = ["--size", "64x64", "--frames", "5", "--steps", "2", "--model", "tiny-t2v-a14b", "--server", server.url]
        target = str(tmp_path / "a.mp4")
        made = invoke("generate", "a red circle", *quick, "-o", target, "--webhook", receiver.url)
        assert made.returncode == 0, made.stderr
        wait_for(lambda: receiver.requests, what="the message")
        assert json.loads(receiver.requests[0][1])["type"] == "task.completed"
        refused = invoke("extend", "last", *quick[6:], "-o", target, "--webhook", "https://example.com/")
        assert refused.returncode == 1
        assert "may not call" in refused.stderr
    finally:
        receiver.close()
        server.stop()
