"""`wan22 webhooks` lists what was given up, sends it again, and shows and replaces the secret."""

from __future__ import annotations

import json
from pathlib import Path

from backend.core.requests.webhooks import Webhook
from backend.services.webhooks.retries import RetrySchedule
from backend.store.clients.deliveries import DeliveryState
from tests.commands.support import invoke
from tests.services.webhooks.test_delivery import Office


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
