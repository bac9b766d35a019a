"""A receiver of webhooks in the standard library: verifies the signature, and handles each message once.

Run it with the secret that `wan22 webhooks secret` prints:
`WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 9000`.
The server calls it when it runs with `WAN22_OUTBOUND_HOSTS='["127.0.0.1:9000"]'` and, because that is a private
address, `WAN22_OUTBOUND_NETWORKS='["127.0.0.0/8"]'`. Then queue a task with `"webhook": "http://127.0.0.1:9000/"`.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
MAX_BYTES = 100_000
#: An older message may be a copy that somebody recorded; in seconds.
MAX_AGE = 300
#: Ids of handled messages. A real receiver keeps them where it keeps what it does with a message.
handled: set[str] = set()


def is_genuine(message_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether a message is recent, and one of its signatures is made with our secret."""
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > MAX_AGE:
        return False
    content = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(KEY, content, "sha256")).decode()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in signatures.split())


def handle(message: dict[str, dict[str, str]]) -> None:
    """Do something with a message."""
    print(message["type"], message["data"]["task_id"], flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to each genuine message, also when it comes again; otherwise the server would repeat it."""

    timeout = 10  # seconds, for a sender that stops in the middle

    def do_POST(self) -> None:
        """Receive one message."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MAX_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(size))
        message_id, *marks = (self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        if not is_genuine(message_id, *marks, body):
            self.send_error(401)
            return
        if message_id not in handled:
            handle(json.loads(body))
            handled.add(message_id)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing but messages."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
