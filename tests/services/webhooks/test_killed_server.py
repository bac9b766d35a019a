"""A real server that is killed between the change of a task and the end of its message."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from backend.services.webhooks.signing import new_secret
from tests.services.webhooks.receiver import Receiver
from tests.support.server import LiveServer, wait_for

pytestmark = pytest.mark.timeout(300)
DELIVERIES = "/api/v1/webhooks/deliveries"
SETTINGS = {
    "WAN22_WORKER": "false",
    "WAN22_OUTBOUND_HOSTS": '["127.0.0.1"]',
    "WAN22_OUTBOUND_NETWORKS": '["127.0.0.0/8"]',
}


def messages(server: LiveServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get(DELIVERIES).json()["deliveries"]
    return found


@pytest.mark.parametrize(("point", "received"), [("webhook.before_send", 0), ("webhook.after_send", 1)])
def test_34_a_killed_server_delivers_after_its_restart(
    live_server: Callable[..., LiveServer], point: str, received: int
) -> None:
    receiver, secret = Receiver(), new_secret()
    dying = live_server(**SETTINGS, WAN22_FAULTS=f"{point}=kill")
    task_id = dying.submit(webhook={"url": receiver.url, "secret": secret})
    assert dying.client.post(f"/api/v1/queue/{task_id}/cancel", json={}).status_code == 200
    assert dying.process.wait(60) == -signal.SIGKILL
    dying.client.close()
    assert len(receiver.requests) == received

    server = live_server(dying.home, **SETTINGS)
    wait_for(lambda: messages(server)[0]["state"] == "delivered", what="delivery")
    [delivered] = messages(server)
    assert (delivered["task_id"], delivered["type"], delivered["attempts"]) == (task_id, "task.cancelled", 1)
    assert len(receiver.requests) == received + 1
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {delivered["id"]}
    for headers, body in receiver.requests:
        assert Verifier(secret).verify(body, headers)["data"]["task_id"] == task_id
    assert secret not in dying.log.read_text() + server.log.read_text()
    receiver.close()
