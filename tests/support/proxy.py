"""A network between client and server that changes what passes through it, or loses answers."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

#: Headers of one connection, which are not passed on.
_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@dataclass
class Request:
    """A request on its way to the server; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """An answer on its way to the client."""

    status: int
    headers: dict[str, str]
    body: bytes


Ask = Callable[[Request], Answer]
#: Answers a request, with the help of the server or without; None = hangs up.
Network = Callable[[Request, Ask], Answer | None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Proxy:
    """A proxy in threads, on a free port."""

    def __init__(self, server: str, network: Network) -> None:
        client = httpx2.Client(base_url=server, timeout=60.0)

        def ask(request: Request) -> Answer:
            got = client.request(request.method, request.path, content=request.body, headers=request.headers)
            headers = {name.lower(): value for name, value in got.headers.items() if name.lower() not in _HOP}
            return Answer(got.status_code, headers, got.content)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = self._chunks()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): text for name, text in self.headers.items() if name.lower() not in _HOP}
                answer = network(Request(self.command, self.path, headers, body), ask)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, text in answer.headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

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
        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._client.close()


class LosingProxy(Proxy):
    """A proxy that passes every request on, and then may answer 5xx instead, or hang up.

    A request says in `X-Lose` what becomes of the answers to its attempts, such as `502,drop`: the first attempt is
    answered 502, the second one with a broken connection, both after the server has done its work; the third gets
    through. `X-Click` tells the attempts of one call from those of another.
    """

    def __init__(self, server: str) -> None:
        self.attempts: defaultdict[str, int] = defaultdict(int)  #: how often each click arrived
        self._lock = threading.Lock()
        super().__init__(server, self._lose)

    def _lose(self, request: Request, ask: Ask) -> Answer | None:
        faults = [fault for fault in request.headers.pop("x-lose", "").split(",") if fault]
        click = request.headers.pop("x-click", "")
        with self._lock:
            number = self.attempts[click]
            self.attempts[click] += 1
        answer = ask(request)
        if number >= len(faults):
            return answer
        if faults[number] == "drop":
            return None
        headers = {"retry-after-ms": "1", "content-type": "application/json"}
        return Answer(int(faults[number]), headers, b'{"error": {"message": "bad gateway"}}')
