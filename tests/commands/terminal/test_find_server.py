"""The running server of a home is believed only when it is the one that announced itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.commands.temporary_server import find_server
from backend.core.settings import load_settings

Announce = Callable[..., str | None]


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[Announce]:
    """Announce a server whose port answers `/live` with `body`, and look for it."""
    running: list[ThreadingHTTPServer] = []

    def find(body: bytes, announcement: dict[str, object], status: int = 200) -> str | None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        settings = load_settings(home=tmp_path)
        settings.paths.server_file.write_text(json.dumps({"url": url, "pid": 1} | announcement))
        found = find_server(settings)
        assert found in (None, url)
        return found

    yield find
    for server in running:
        server.shutdown()
        server.server_close()


def test_the_server_that_announced_itself_is_found(announced: Announce) -> None:
    assert announced(b'{"status": "alive", "instance": "a1"}', {"instance": "a1"}) is not None


@pytest.mark.parametrize(
    "body",
    [b'{"status": "alive", "instance": "b2"}', b'{"status": "alive"}', b"<html>hello</html>", b"[]", b"", b"\xff"],
    ids=["another server", "an older one", "a page", "a list", "nothing", "bytes"],
)
def test_another_program_on_its_port_is_not(announced: Announce, body: bytes) -> None:
    assert announced(body, {"instance": "a1"}) is None


@pytest.mark.parametrize("announcement", [{}, {"instance": None, "pid": "x"}, {"url": 5, "instance": "a1"}])
def test_an_unusable_announcement_finds_nothing(announced: Announce, announcement: dict[str, object]) -> None:
    assert announced(b'{"status": "alive"}', announcement) is None


def test_a_live_answer_that_is_an_error_is_not_believed(announced: Announce) -> None:
    assert announced(b'{"instance": "a1"}', {"instance": "a1"}, 503) is None
