"""Webhooks over the API: refused where no host is named, delivered to one, and seen by their own key alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error
from tests.services.webhooks.receiver import Receiver

DELIVERIES = "/api/v1/webhooks/deliveries"
SECRET = "whsec_" + "QUJD" * 10


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("hooks") / "home"
    served = Served(home, outbound_hosts=["127.0.0.1"], outbound_networks=["127.0.0.0/8"])
    yield served
    served.client.__exit__(None, None, None)


def test_a_server_calls_nobody_until_its_operator_names_a_host(served: Served) -> None:
    refused = served.client.post(SUBMIT, json=GOOD | {"webhook": "https://example.com/"})
    assert_error(refused, 422, "url_not_allowed")
    status = served.client.get("/api/v1/webhooks").json()
    assert (status["enabled"], served.count()) == (False, 0)


@pytest.mark.parametrize(
    ("webhook", "code"),
    [
        ("https://example.com/", "url_not_allowed"),
        ("http://user@127.0.0.1/", "url_not_allowed"),
        ("file:///etc/passwd", "url_not_allowed"),
        ({"url": "http://127.0.0.1/", "secret": "whsec_tiny"}, "invalid_request"),
        ({"url": "http://127.0.0.1/", "events": []}, "validation_error"),
        ({"url": "http://127.0.0.1/", "events": ["task.sung"]}, "validation_error"),
        ({"events": ["task.failed"]}, "validation_error"),
        (7, "validation_error"),
    ],
)
def test_a_webhook_that_could_not_be_told_is_refused(open_server: Served, webhook: object, code: str) -> None:
    before = open_server.count()
    body = open_server.client.post(SUBMIT, json=GOOD | {"webhook": webhook})
    assert body.status_code == 422
    if code != "validation_error":
        assert_error(body, 422, code)
    assert "whsec_tiny" not in body.text
    assert open_server.count() == before


def test_a_message_is_seen_and_sent_again_by_its_own_key_alone(open_server: Served) -> None:
    receiver, served = Receiver(), open_server
    receiver.answer = lambda: [b"HTTP/1.1 410 Gone\r\n\r\n"]
    anna, bert = bearer(served, "anna"), bearer(served, "bert")
    hook = {"url": receiver.url + "?token=hidden", "secret": SECRET, "events": ["task.started", "task.cancelled"]}
    made = served.client.post(SUBMIT, json=GOOD | {"webhook": hook}, headers=anna)
    assert made.status_code == 200
    assert SECRET not in made.text
    served.claim()
    served.services.webhooks.send_due()
    served.services.webhooks.wait_until_sent(20)
    listed = served.client.get(DELIVERIES, params={"state": "failed"}, headers=anna)
    [dead] = listed.json()["deliveries"]
    assert (dead["task_id"], dead["status"], dead["host"]) == (made.json()["task_id"], 410, "127.0.0.1")
    detail = served.client.get(f"{DELIVERIES}/{dead['id']}", headers=anna)
    assert "task.started" in detail.json()["body"]
    assert SECRET not in listed.text + detail.text
    assert "hidden" not in listed.text + detail.text
    assert "/hook" not in listed.text + detail.text
    metrics = served.client.get("/metrics", headers=bert).text
    assert 'wan22_webhook_messages{state="failed"} 1.0' in metrics
    found = [one.sentence for one in served.services.monitor.examine().findings if one.name == "webhooks"]
    assert found == ["1 message to a webhook was given up within a day"]
    assert served.client.get(DELIVERIES, headers=bert).json()["deliveries"] == []
    assert served.client.get("/api/v1/webhooks", headers=bert).json()["failed"] == 0
    unknown = served.client.get(f"{DELIVERIES}/msg_none", headers=bert)
    for method, path in (("GET", dead["id"]), ("POST", dead["id"] + "/redeliver")):
        other = served.client.request(method, f"{DELIVERIES}/{path}", headers=bert)
        assert_error(other, 404, "delivery_not_found")
        assert other.json()["message"] == unknown.json()["message"]
    again = served.client.post(f"{DELIVERIES}/{dead['id']}/redeliver", headers=anna).json()
    assert (again["state"], again["id"]) == ("pending", dead["id"])
    receiver.close()


def bearer(served: Served, name: str) -> dict[str, str]:
    """Make an API key and return the header that brings it."""
    drawn = draw_key()
    served.services.key_store.create(drawn, name, (Scope.GENERATE,), KeyLimits(), None)
    served.services.keys.refresh()
    return {"Authorization": f"Bearer {drawn.text}"}


@pytest.fixture
def calling(serve: Callable[..., Served]) -> Served:
    """A server of this test alone, which may call this machine."""
    return serve(outbound_hosts=["127.0.0.1"], outbound_networks=["127.0.0.0/8"])


def test_a_task_shows_where_its_webhook_leads_and_nothing_else(calling: Served) -> None:
    hook = {"url": "http://127.0.0.1:9/way?token=hidden", "secret": SECRET}
    task_id = calling.submit(webhook=hook)
    for path in (f"/api/v1/queue/{task_id}", "/api/v1/queue", f"/api/v1/generate/{task_id}"):
        answer = calling.client.get(path)
        assert '"webhook_host":"127.0.0.1"' in answer.text, path
        assert "hidden" not in answer.text
        assert SECRET not in answer.text
    assert "webhook_host" not in calling.client.get(f"/api/v1/queue/{calling.submit()}").json()


def test_videos_of_other_clients_have_webhooks_too(calling: Served) -> None:
    """Of `/v1/videos` with all that it makes, in JSON and in a form."""
    served, receiver = calling, Receiver()
    hook = {"url": receiver.url, "events": ["task.cancelled"]}
    made = calling.client.post("/v1/videos", json={"prompt": "a red circle", "model": TINY, "webhook": hook})
    assert made.status_code == 200, made.text
    video = made.json()["id"]
    served.complete(served.claim())
    asked: list[dict[str, Any]] = [
        {"url": f"/v1/videos/{video}/remix", "json": {"prompt": "a blue ring", "webhook": hook}},
        {"url": "/v1/videos/edits", "json": {"prompt": "a blue ring", "webhook": hook, "video": {"id": video}}},
        {"url": "/v1/videos", "data": {"prompt": "a red ring", "model": TINY, "webhook": json.dumps(hook)}},
        {"url": "/v1/videos", "data": {"prompt": "a red ring", "model": TINY, "webhook": receiver.url}},
    ]
    for one in asked:
        answer = served.client.post(**one)
        assert answer.status_code == 200, answer.text
        assert served.services.tasks.get(answer.json()["id"]).webhook_host == "127.0.0.1"
        assert "webhook" not in answer.text
    refused = served.client.post(f"/v1/videos/{video}/remix", json={"prompt": "x", "webhook": "https://example.com/"})
    assert_error(refused, 400, "url_not_allowed")
    assert_error(
        served.client.post(f"/v1/videos/{video}/remix", json={"prompt": "x", "seed": 7, "webhook": hook}),
        400,
        "not_offered",
    )
    receiver.close()


def test_a_repeated_remix_differs_by_its_webhook(calling: Served) -> None:
    video = calling.complete_one()
    key = {"Idempotency-Key": "remix-once"}
    body = {"prompt": "a blue ring", "webhook": "http://127.0.0.1:9/"}
    first, second = (
        calling.client.post(f"/v1/videos/{video}/remix", json=body, headers=key).json()["id"] for _ in range(2)
    )
    assert first == second
    other = calling.client.post(f"/v1/videos/{video}/remix", json={"prompt": "a blue ring"}, headers=key)
    assert_error(other, 409, "idempotency_conflict")
