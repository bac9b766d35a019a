"""`wan22 generate`, `queue` and `doctor` as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands.support import PROMPT, QUICK, frames_of, wan22
from tests.support.server import LiveServer
from training.world.observation import observe


def test_generates_by_itself_and_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    done = wan22("generate", PROMPT, *QUICK, "-o", str(target), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert frames_of(target).shape == (5, 64, 64, 3)
    assert "made by tiny-t2v-a14b, seed 7, 4 steps, unipc, guidance" in done.stdout
    assert "100.0 %" in done.stderr
    assert not (tmp_path / "home" / "server.json").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "prompt", [PROMPT, "a yellow triangle growing on a gray background", "a white ring moving up on a teal background"]
)
def test_the_saved_clip_shows_what_the_prompt_says(tmp_path: Path, prompt: str) -> None:
    target = tmp_path / "clip.mp4"
    done = wan22("generate", prompt, "--seed", "7", "-o", str(target), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    frames = frames_of(target)
    assert len(frames) >= 17
    seen = observe(frames)
    assert f"a {seen.colour} {seen.shape} {seen.motion} on a {seen.background} background" == prompt


def test_same_command_same_frames_other_seed_other_frames(
    live_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = live_server()
    clips = []
    for name, seed in (("one", "7"), ("two", "7"), ("three", "8")):
        target = tmp_path / f"{name}.mp4"
        done = wan22("generate", PROMPT, *QUICK[:-1], seed, "-o", str(target), "--server", server.url)
        assert done.returncode == 0, done.stderr
        clips.append(frames_of(target))
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])
    listed = wan22("queue", home=server.home)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("completed") == 3
    assert "0 waiting, 0 running" in listed.stdout


def test_errors_are_sentences_with_a_next_step(live_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = live_server(WAN22_WORKER="false", WAN22_AUTO_DOWNLOAD="false")
    refused = wan22("generate", PROMPT, "--size", "4000x4000", home=server.home)
    assert refused.returncode == 1
    assert "nearest size it can make is 256x256" in refused.stderr
    missing = wan22("generate", PROMPT, "--model", "T2V-A14B", home=server.home)
    assert missing.returncode == 1
    assert "is not installed" in missing.stderr
    assert "tiny-t2v-a14b" in missing.stderr
    unknown = wan22("queue", "cancel", "no-such-task", home=server.home)
    assert unknown.returncode == 1
    assert "Task not found" in unknown.stderr
    assert "Traceback" not in refused.stderr + missing.stderr + unknown.stderr
    assert server.client.get("/api/v1/queue").json()["total_tasks"] == 0


def test_a_missing_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    done = wan22("generate", PROMPT, "-o", str(tmp_path / "nowhere" / "clip.mp4"), home=tmp_path / "home")
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_waiting_task_is_cancelled_from_the_command_line(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_WORKER="false")
    task_id = server.submit()
    done = wan22("queue", "cancel", task_id, home=server.home)
    assert done.returncode == 0, done.stderr
    assert "cancelled successfully" in done.stdout
    assert server.task(task_id)["status"] == "cancelled"


def test_the_queue_says_why_a_task_has_no_turn(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_WORKER="false")
    server.submit()
    assert "paused" not in wan22("queue", home=server.home).stdout
    server.submit(model_type="T2V-A14B", resolution="128x128")
    wish = {"model_id": "T2V-A14B", "action": "pause"}
    assert server.client.post("/api/v1/models/download/manage", json=wish).status_code == 200
    listed = wan22("queue", home=server.home)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("Somebody paused the download of T2V-A14B") == 1
    assert "2 waiting, 0 running" in listed.stdout


def test_second_server_on_the_same_home_is_refused(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_WORKER="false")
    done = wan22("serve", "--port", "0", home=server.home)
    assert done.returncode == 1
    assert f"process {server.pid}" in done.stderr


def test_public_bind_without_a_key_is_refused(tmp_path: Path) -> None:
    done = wan22("serve", "--host", "0.0.0.0", "--port", "0", home=tmp_path)
    assert done.returncode == 1
    assert "WAN22_API_KEY" in done.stderr


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("wan22.db").write_bytes(b"a picture, not a database" * 100)
    done = wan22("serve", "--port", "0", home=tmp_path)
    assert done.returncode == 1
    assert "wan22.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert tmp_path.joinpath("wan22.db").read_bytes().startswith(b"a picture")


def test_bad_setting_is_named_without_its_value(tmp_path: Path) -> None:
    env = os.environ | {"WAN22_HOME": str(tmp_path), "WAN22_PORT": "secret-value"}
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", "serve"], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 1
    assert "WAN22_PORT" in done.stderr
    assert "secret-value" not in done.stderr + done.stdout


def test_doctor_says_what_is_here_and_what_is_not(tmp_path: Path) -> None:
    done = wan22("doctor", "--offline", home=tmp_path, timeout=240)
    assert done.returncode == 0, done.stdout
    assert "Wan-AI/Wan2.2-T2V-A14B-Diffusers" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.split()[1:2] == ["tiny-t2v-a14b"])
    assert line.split()[0] == "ok"


def test_doctor_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = wan22("doctor", "--offline", home=tmp_path / "file" / "home", timeout=240)
    assert done.returncode == 1
    assert "cannot be written" in done.stdout
