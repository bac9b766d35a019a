"""The receiver in `examples/` takes what the server sends, once, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from backend.core.requests.webhooks import Webhook
from backend.services.webhooks.signing import new_secret
from backend.store.clients.deliveries import DeliveryState
from tests.services.webhooks.test_delivery import Office

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"


def test_the_example_takes_a_message_once_and_a_forged_one_never(tmp_path: Path) -> None:
    office, secret = Office(tmp_path / "home"), new_secret()
    env = os.environ | {"WEBHOOK_SECRET": secret}
    with subprocess.Popen([sys.executable, EXAMPLE, "0"], env=env, stdout=subprocess.PIPE, text=True) as example:
        try:
            assert example.stdout is not None
            port = int(example.stdout.readline().split()[-1])
            url = f"http://127.0.0.1:{port}/"
            forged = office.finish(Webhook(url, secret=new_secret()))
            real = office.finish(Webhook(url, secret=secret))
            office.send(office.sender())
            by_task = {one.task_id: one for one in office.store.list()}
            assert (by_task[forged.id].status, by_task[real.id].state) == (401, DeliveryState.DELIVERED)
            office.store.redeliver(by_task[real.id].id)
            office.send(office.sender())
            assert office.store.get(by_task[real.id].id).state is DeliveryState.DELIVERED
            bare = HTTPConnection("127.0.0.1", port, timeout=20)
            bare.request("POST", "/", b"{}")
            assert bare.getresponse().status == 401
            bare.close()
        finally:
            example.terminate()
        printed = example.stdout.read()
    assert printed.splitlines() == [f"task.completed {real.id}"]
    office.database.close()
