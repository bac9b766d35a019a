"""Running `wan22` as a user does, and looking at the files it saves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from contextvars import copy_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np

from backend.cli import main
from backend.commands.console.terminal import err, out

QUICK = ["--size", "64x64", "--frames", "5", "--steps", "4", "--seed", "7"]
PROMPT = "a red circle moving right on a navy background"


def wan22(
    *arguments: str, home: Path | None = None, timeout: float = 110, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with further variables if given."""
    shown = {"COLUMNS": "160", "OMP_NUM_THREADS": "1"} | (env or {})
    env = os.environ | ({"WAN22_HOME": str(home)} if home else {}) | shown
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *arguments], capture_output=True, text=True, env=env, timeout=timeout
    )


def invoke(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command inside this process, which saves the start of another one; everything else is the same."""
    printed, said = io.StringIO(), io.StringIO()
    out.width = err.width = 160
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", ["wan22", *arguments]))
        stack.enter_context(patch.dict(os.environ, {"WAN22_HOME": str(home)} if home else {}))
        stack.enter_context(redirect_stdout(printed))
        stack.enter_context(redirect_stderr(said))
        try:
            copy_context().run(main)  # what it says about itself ends with it
            status: object = 0
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(arguments, int(str(status or 0)), printed.getvalue(), said.getvalue())


def frames_of(path: Path) -> np.ndarray:
    """Decode a file as a player would."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def record_of(path: Path) -> dict[str, Any]:
    """Read the record inside a file."""
    with av.open(str(path)) as container:
        record: dict[str, Any] = json.loads(container.metadata["wan22"])
    return record


def with_record(source: Path, target: Path, record: Any) -> Path:
    """Copy a video, picture for picture, with another record, or without one."""
    options = {"movflags": "+faststart+use_metadata_tags"}
    with av.open(str(source)) as old, av.open(str(target), "w", format="mp4", options=options) as new:
        if record is not None:
            new.metadata["wan22"] = json.dumps(record)
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target
