"""A server at work calls nobody: no library, page or check of ours goes outside unasked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.support.server import LiveServer

#: Runs in every process of the server before anything else: notes who looks a name up or connects elsewhere.
WATCH = """
import os, sys
def watch(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = args[1] if event == "socket.connect" else args[0]
    host = host[0] if isinstance(host, tuple) else host
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if event == "socket.connect" and isinstance(args[1], (str, bytes)):
        return  # a socket of this machine
    if host not in (None, "", "localhost", "::1") and not str(host).startswith("127."):
        with open(os.environ["OUTSIDE"], "a") as file:
            file.write(f"{event} {host}\\n")
sys.addaudithook(watch)
with open(os.environ["OUTSIDE"], "a") as file:
    file.write(f"watched {os.getpid()}\\n")
"""


def test_a_clip_is_made_without_a_call_outside(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    notes = tmp_path / "notes"
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    server = live_server(PYTHONPATH=path, OUTSIDE=str(notes))
    server.wait(server.submit(), "completed", seconds=200)
    for page in ("/docs", "/api/v1/models", "/api/v1/system/health", "/api/v1/lora", "/metrics"):
        assert server.client.get(page).status_code == 200, page
    lines = notes.read_text().splitlines()
    watched = {line.split()[1] for line in lines if line.startswith("watched")}
    assert {str(server.pid), *map(str, server.worker_pids)} <= watched
    assert [line for line in lines if not line.startswith("watched")] == []
