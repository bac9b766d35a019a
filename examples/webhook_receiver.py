"""A receiver of webhooks in the standard library: checks the signature, and takes each message once.

Run it with the secret that `wan22 webhooks secret` shows:
`WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 9000`.
The server may call it after `WAN22_OUTBOUND_HOSTS='["127.0.0.1:9000"]' WAN22_OUTBOUND_NETWORKS='["127.0.0.0/8"]'`.
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
MOST_BYTES = 100_000
#: Older messages may be copies that somebody recorded; in seconds.
OLDEST = 300
seen: set[str] = set()


def is_genuine(message_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether one of the signatures is that of our secret, and the message is new."""
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > OLDEST:
        return False
    content = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(KEY, content, "sha256")).decode()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in signatures.split())


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to what it has taken, also if it comes again."""

    def do_POST(self) -> None:
        """Take one message."""
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(min(size, MOST_BYTES))
        marks = [self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")]
        if not is_genuine(*marks, body):
            self.send_error(401)
            return
        if marks[0] not in seen:  # a message comes at least once
            seen.add(marks[0])
            message = json.loads(body)
            print(message["type"], message["data"]["task_id"], flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print messages alone."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
