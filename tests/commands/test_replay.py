"""`wan22 replay` on real files: the same clip again, or what is different and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import ModelShapes
from tests.commands.support import PROMPT, QUICK, frames_of, invoke, record_of, with_record
from tests.commands.test_clips import SMALL, picture
from tests.support.lora_files import diffusers_file, random_adapter, write_lora
from tests.support.server import LiveServer


@pytest.fixture(scope="module")
def clip(maker: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    options = ["--guidance", "2.5", "--scheduler", "euler", "--fps", "12", "--crf", "12"]
    done = invoke("generate", PROMPT, *QUICK, *options, "-o", str(path), "--server", maker.url)
    assert done.returncode == 0, done.stderr
    return path


def test_a_clip_is_made_again_and_is_identical(maker: LiveServer, clip: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    done = invoke("replay", str(clip), "--check", "-o", str(again), "--server", maker.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical (the frames before encoding)" in done.stdout
    assert "differs" not in done.stdout
    assert "100.0 %" in done.stderr
    assert record_of(again)["request"] == record_of(clip)["request"]
    assert record_of(again)["task_id"] != record_of(clip)["task_id"]
    assert (frames_of(again) == frames_of(clip)).all()


def test_what_is_different_is_measured_and_named(maker: LiveServer, clip: Path, tmp_path: Path) -> None:
    record = record_of(clip)
    record["request"]["seed"] = 8  # the pictures are those of 7
    record["model"]["weights_sha256"] = "0" * 64
    record["libraries"]["torch"] = "1.0"
    odd = with_record(clip, tmp_path / "odd.mp4", record)
    done = invoke("replay", str(odd), "--check", "-o", str(tmp_path / "again.mp4"), "--server", maker.url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "different (the frames before encoding)" in done.stdout
    assert "PSNR" in done.stdout
    assert "over 5 decoded frames" in done.stdout
    assert "changed since: weights, torch" in done.stdout
    differing = [line.split()[0] for line in done.stdout.splitlines() if line.rstrip().endswith("differs")]
    assert differing == ["weights", "torch"]


def test_an_older_record_is_judged_by_its_decoded_frames(maker: LiveServer, clip: Path, tmp_path: Path) -> None:
    record = record_of(clip)
    del record["result"]["frames_sha256"]
    old = with_record(clip, tmp_path / "old.mp4", record)
    done = invoke("replay", str(old), "--check", "-o", str(tmp_path / "again.mp4"), "--server", maker.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical (the decoded frames" in done.stdout


def test_what_cannot_be_replayed_is_refused_at_once(tmp_path: Path, clip: Path) -> None:
    bare = with_record(clip, tmp_path / "bare.mp4", None)
    done = invoke("replay", str(bare), home=tmp_path / "home")
    assert done.returncode == 1
    assert "no record of how it was made" in done.stderr
    over = invoke("replay", str(clip), "-o", str(clip), home=tmp_path / "home")
    assert over.returncode == 1
    assert "is the video to be made again" in over.stderr
    assert not (tmp_path / "home").exists(), "nothing was started for them"


def test_a_lora_is_known_by_its_content(maker: LiveServer, clip: Path, tmp_path: Path) -> None:
    shape = ModelShapes(EMBEDDED_MODELS).of(MODELS["tiny-t2v-a14b"])
    assert shape is not None

    def put(expert: str, seed: int) -> None:
        file = maker.home / "loras" / f"replayed_{expert}_noise.safetensors"
        write_lora(file, diffusers_file(random_adapter(shape, seed=seed)))

    put("high", 1)
    put("low", 2)
    path = tmp_path / "clip.mp4"
    made = invoke("generate", PROMPT, *QUICK, "--lora", "replayed:0.5:1", "-o", str(path), "--server", maker.url)
    assert made.returncode == 0, made.stderr
    assert "LoRA replayed applied" in made.stdout
    assert record_of(path)["result"]["frames_sha256"] != record_of(clip)["result"]["frames_sha256"]
    check = ["replay", str(path), "--check", "-o", str(tmp_path / "again.mp4"), "--server", maker.url]
    done = invoke(*check)
    assert done.returncode == 0, done.stdout + done.stderr
    put("low", 3)
    other = invoke(*check)
    assert other.returncode == 1, other.stdout + other.stderr
    assert "changed since: LoRA replayed" in other.stdout


def test_images_are_taken_from_the_server_or_from_a_file(maker: LiveServer, tmp_path: Path) -> None:
    image, path = picture(tmp_path / "start.png", (10, 200, 100)), tmp_path / "clip.mp4"
    options = ["--image", str(image), "-o", str(path), "--server", maker.url]
    made = invoke("generate", PROMPT, *SMALL, *options)
    assert made.returncode == 0, made.stderr
    check = ["replay", str(path), "--check", "-o", str(tmp_path / "again.mp4"), "--server", maker.url]
    done = invoke(*check)
    assert done.returncode == 0, done.stdout + done.stderr
    (maker.home / "inputs" / f"{record_of(path)['request']['image']}.png").unlink()
    missing = invoke(*check)
    assert missing.returncode == 1
    assert "no longer on the server" in missing.stderr
    assert "--image" in missing.stderr
    other = invoke(*check, "--image", str(picture(tmp_path / "other.png", (0, 0, 0))))
    assert other.returncode == 1
    assert "is not the picture" in other.stderr
    assert "changed since: request: image" in other.stdout
    given = invoke(*check, "--image", str(image))
    assert given.returncode == 0, given.stdout + given.stderr
    assert "identical" in given.stdout
