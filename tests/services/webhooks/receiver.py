"""A receiver of webhooks that answers with whatever bytes a test wants, and notes what reached it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

Request = tuple[dict[str, str], bytes]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """Listens on an address of loopback; `answer` may be changed while it runs."""

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._socket = socket.create_server((address, 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{address}:{self.port}/hook"
        self.requests: list[Request] = []
        self.answer: Callable[[], Iterable[bytes]] = lambda: [OK]
        self.sent = 0  #: bytes that its client accepted of the newest answer
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with suppress(OSError), self._secured(client) as client:
            client.settimeout(20)
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(65536) or _ended()
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            while len(body) < int(headers["content-length"]):
                body += client.recv(65536) or _ended()
            self.requests.append((headers | {"": lines[0]}, body))
            self.sent = 0
            for part in self.answer():
                client.sendall(part)
                self.sent += len(part)

    def _secured(self, client: socket.socket) -> socket.socket:
        if self._tls is None:
            return client
        try:
            return self._tls.wrap_socket(client, server_side=True)
        except OSError:
            client.close()
            raise


def _ended() -> bytes:
    raise ConnectionError
