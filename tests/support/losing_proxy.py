"""A network that loses answers: it passes every request on, and then may answer 5xx instead, or hang up.

A request says in `X-Lose` what becomes of the answers to its attempts, such as `502,drop`: the first attempt is
answered 502, the second one with a broken connection, both after the server has done its work; the third gets through.
`X-Click` tells the attempts of one call from those of another.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "x-lose", "x-click"}


class LosingProxy:
    """The proxy in a thread, on a free port."""

    def __init__(self, server: str) -> None:
        self.attempts: defaultdict[str, int] = defaultdict(int)  #: how often each click arrived
        client = httpx2.Client(base_url=server, timeout=60.0)
        attempts, lock = self.attempts, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = self._chunks()
                faults = [fault for fault in self.headers.get("X-Lose", "").split(",") if fault]
                click = self.headers.get("X-Click", "")
                with lock:
                    number = attempts[click]
                    attempts[click] += 1
                kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                answer = client.request(self.command, self.path, content=body, headers=kept)
                fault = faults[number] if number < len(faults) else ""
                if fault == "drop":
                    self.close_connection = True
                    return
                content = b'{"error": {"message": "bad gateway"}}' if fault else answer.content
                self.send_response(int(fault or answer.status_code))
                if fault:
                    self.send_header("retry-after-ms", "1")
                    self.send_header("Content-Type", "application/json")
                for name, value in () if fault else answer.headers.items():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _chunks(self) -> bytes:
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            do_GET = do_POST = do_DELETE = _pass_on

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._client = client
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="losing-proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._client.close()
