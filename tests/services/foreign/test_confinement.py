"""A process that reads foreign files can reach nothing: not although it were taken over by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: What somebody who has taken the process over would try; each answers with the name of an error, or "done".
ATTEMPTS = """
import ctypes, json, mmap, os, signal, socket, subprocess, sys, threading
from backend.services.foreign.confinement import confine

victim, parent = sys.argv[1], int(sys.argv[2])
def kill(): os.kill(parent, 0)
def spawn(): subprocess.run(["/bin/true"])
def thread():
    one = threading.Thread(target=print); one.start(); one.join()
def memory(): bytearray(2**30)
def raw_socket():
    ctypes.set_errno(0)
    if libc.socket(2, 1, 0) < 0: raise OSError(ctypes.get_errno(), "socket")
libc = ctypes.CDLL(None, use_errno=True)
attempts = {
    "read": lambda: open(victim).read(), "write": lambda: open(victim, "w"), "unlink": lambda: os.unlink(victim),
    "rename": lambda: os.rename(victim, victim + "x"), "folder": lambda: os.mkdir(victim + "d"),
    "socket": lambda: socket.socket(), "raw socket": raw_socket, "fork": os.fork, "spawn": spawn,
    "execute": lambda: os.execv("/bin/true", ["true"]), "signal": kill, "memory": memory,
    "truncate": lambda: os.truncate(victim, 0), "chmod": lambda: os.chmod(victim, 0o777), "thread": thread,
    "list": lambda: os.listdir("/"), "duplicate": lambda: os.dup(1),
}
answers = {"confined": confine(700 * 2**20, 10)}
for name, attempt in attempts.items():
    try:
        attempt()
        answers[name] = "done"
    except BaseException as error:
        answers[name] = type(error).__name__
sys.stdout.write(json.dumps(answers))
sys.stdout.flush()
os._exit(0)
"""


def test_nothing_can_be_opened_sent_started_or_changed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(victim), "1"], capture_output=True, text=True, timeout=60, check=False
    )
    answers = json.loads(done.stdout)
    assert answers.pop("confined") is True, "this kernel refuses no system calls"
    assert "done" not in answers.values(), answers
    assert len(answers) >= 17
    assert victim.read_text() == "kept"
    assert [one.name for one in tmp_path.iterdir()] == ["victim"]
