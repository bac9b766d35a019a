"""A stand-in for the model hub on loopback: a real HTTP server with the endpoints that downloads use.

It listens on two ports: the hub, which redirects large files, and the CDN, which serves them. It records every
request and injects the faults that a test configures.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import close_session

REPOSITORY = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
COMMIT = "5be7df9619b54f4e2667b2755bc6a756675b5cd7"
_CHUNK = 16 * 1024
#: As on the hub, weights are in LFS: their digest is a SHA-256, and the hub redirects to them.
_LFS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as received."""

    place: str  #: hub or cdn
    path: str
    range: str | None
    authorization: str | None
    user_agent: str


@dataclass
class Answer:
    """A response that the stand-in sends instead of the correct one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class StandIn:
    """Serves the repository `files` (name -> bytes); the attributes inject faults."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.listed: list[dict[str, Any]] | None = None  #: replaces the entries of the listing
        self.answers: deque[Answer] = deque()  #: responses to the next API requests
        self.file_answers: deque[Answer] = deque()  #: responses to the next file requests at the hub
        self.cdn_answers: deque[Answer] = deque()
        self.flip: Counter[str] = Counter()  #: file -> number of times it is served with a wrong byte
        self.cut: deque[int] = deque()  #: bytes after which the next CDN connections break
        self.ranges = True  #: whether the CDN honours range requests
        self.required_token: str | None = None
        self.requests: list[Request] = []
        self.served: Counter[str] = Counter()  #: bytes sent of each file
        self.hold_at: int | None = None  #: total of served bytes at which the connection stalls
        self.held, self.release = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._hub, self._cdn = (self._server(place) for place in ("hub", "cdn"))
        self.endpoint = f"http://127.0.0.1:{self._hub.server_port}"
        self.cdn = f"http://127.0.0.1:{self._cdn.server_port}"

    def _server(self, place: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "place": place})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self) -> None:
        """Stop serving."""
        self.release.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def count(self, request: Request) -> None:
        """Record a request."""
        with self._lock:
            self.requests.append(request)

    def take(self, queue: deque[Any]) -> Any:
        """Take the next planned item, or None."""
        with self._lock:
            return queue.popleft() if queue else None

    def may_serve(self, name: str, wanted: int) -> int:
        """Reserve up to `wanted` bytes of a file and return how many may be sent before the connection stalls."""
        with self._lock:
            total = sum(self.served.values())
            if self.hold_at is not None:
                wanted = min(wanted, self.hold_at - total)
            self.served[name] += wanted
            return wanted

    def hold(self, at: int) -> None:
        """Stall after `at` more bytes, and set `held` at that point."""
        self.held.clear()
        self.release.clear()
        with self._lock:
            self.hold_at = sum(self.served.values()) + at

    def go_on(self) -> None:
        """Drop the stalled connection and resume serving."""
        with self._lock:
            self.hold_at = None
        self.release.set()

    def fetched(self) -> Counter[str]:
        """Return the number of requests for each file at the hub."""
        marker = "/resolve/"
        return Counter(
            unquote(r.path.split(marker)[1].split("/", 1)[1])
            for r in self.requests
            if r.place == "hub" and marker in r.path
        )

    def listing(self) -> list[dict[str, Any]]:
        """Return the entries of the repository as the API of the hub lists them."""
        if self.listed is not None:
            return self.listed
        return [entry(name, content) for name, content in self.files.items()]


def entry(name: str, content: bytes) -> dict[str, Any]:
    """Return one entry of a listing."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if name.endswith(_LFS):
        found["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
    return found


def repository_files(folder: Path) -> dict[str, bytes]:
    """Read a folder as the files of a repository."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@contextmanager
def stand_in(files: dict[str, bytes]) -> Iterator[StandIn]:
    """Serve a repository for the duration of the block."""
    hub = StandIn(files)
    try:
        yield hub
    finally:
        close_session()  # the library keeps one connection pool per process
        hub.close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    place: str
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Keep the send buffer small: bytes in it count as served, but are lost when the client is killed."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        super().setup()

    def log_message(self, *_: object) -> None:
        """Log nothing: requests are recorded instead."""

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        hub, headers = self.hub, self.headers
        hub.count(
            Request(self.place, self.path, headers["Range"], headers["Authorization"], headers["User-Agent"] or "")
        )
        if self.place == "cdn":
            planned = hub.take(hub.cdn_answers)
            if planned is not None:
                self._answer(planned.status, planned.headers)
            else:
                self._file(unquote(self.path.partition("?")[0].removeprefix("/objects/")), body)
            return
        planned = hub.take(hub.file_answers if "/resolve/" in self.path else hub.answers)
        if planned is not None:
            self._answer(planned.status, planned.headers)
        elif hub.required_token is not None and headers["Authorization"] != f"Bearer {hub.required_token}":
            self._answer(401, {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith(f"/api/models/{REPOSITORY}"):
            revision = self.path.partition("?")[0].partition("/revision/")[2] or "main"
            if revision not in {"main", COMMIT}:
                self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                answer = {"id": REPOSITORY, "sha": COMMIT, "siblings": hub.listing()}
                self._answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        elif self.path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            self._resolve(unquote(self.path.split("/resolve/")[1].split("/", 1)[1]), body)
        else:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, name: str, body: bool) -> None:
        content = self.hub.files.get(name)
        if content is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
        elif name.endswith(_LFS):
            etag = hashlib.sha256(content).hexdigest()
            self._answer(
                302,
                {
                    "Location": f"{self.hub.cdn}/objects/{name}?signature=s3cret",
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{etag}"',
                    "X-Linked-Size": str(len(content)),
                },
            )
        else:
            self._file(name, body)

    def _file(self, name: str, body: bool) -> None:
        hub, content = self.hub, self.hub.files[name]
        with hub._lock:
            if hub.flip[name] > 0:
                hub.flip[name] -= 1
                at = len(content) // 2
                content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        start = 0
        wanted = self.headers["Range"]
        if wanted and hub.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{entry(name, content)["blobId"]}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self._send(name, content, start, hub.take(hub.cut) if self.place == "cdn" else None)

    def _send(self, name: str, content: bytes, start: int, cut: int | None) -> None:
        end = len(content) if cut is None else min(len(content), start + cut)
        try:
            while start < end:
                allowed = self.hub.may_serve(name, min(_CHUNK, end - start))
                self.wfile.write(content[start : start + allowed])
                start += allowed
                if not allowed:
                    self.wfile.flush()
                    self.hub.held.set()
                    self.hub.release.wait()
                    break
        except OSError:
            pass  # the client has disconnected
        if start < len(content):
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
