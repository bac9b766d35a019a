"""`wan22 generate` with images, variations and kept latents, `extend` and `redecode`, on a real server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from backend.commands.client import ApiClient
from backend.commands.clips import target_of
from backend.commands.generate import parse_lora
from backend.core.errors.base import WanError
from backend.core.errors.surroundings import BadSettings
from backend.core.settings import load_settings
from tests.commands.support import PROMPT, QUICK, frames_of, invoke, record_of
from tests.support.server import LiveServer, wait_for
from training.evaluation.cases import from_image
from training.evaluation.scores import likeness
from training.world.observation import observe

SMALL = ["--model", "I2V-A14B", "--size", "128x128", "--frames", "5", "--steps", "2", "--seed", "3"]


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 40)) -> Path:
    image = Image.new("RGB", (160, 128), colour)
    image.paste((20, 20, 90), (0, 0, 80, 128))
    image.save(path)
    return path


def id_of(stdout: str) -> str:
    match = re.search(r"^id ([0-9a-f-]{36})", stdout, re.MULTILINE)
    assert match, stdout
    return match[1]


def test_variations_are_one_bar_and_one_file_each(maker: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    done = invoke("generate", PROMPT, *QUICK, "--variations", "2", "-o", str(target), "--server", maker.url)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip-1.mp4", "clip-2.mp4"]
    one, two = tmp_path / "clip-1.mp4", tmp_path / "clip-2.mp4"
    assert [record_of(path)["request"]["seed"] for path in (one, two)] == [7, 8]
    assert not np.array_equal(frames_of(one), frames_of(two))
    lines = done.stderr.splitlines()
    firsts = [number for number, line in enumerate(lines) if line.startswith("1/2 ")]
    seconds = [number for number, line in enumerate(lines) if line.startswith("2/2 ")]
    assert firsts
    assert seconds
    assert max(firsts) < min(seconds), "one after the other"


def test_kept_latents_become_another_file(maker: LiveServer, tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    made = invoke("generate", PROMPT, *QUICK, "--keep-latents", "-o", str(first), "--server", maker.url)
    assert made.returncode == 0, made.stderr
    assert "latents kept" in made.stdout
    done = invoke(
        "redecode", id_of(made.stdout), "--fps", "24", "--crf", "40", "-o", str(second), "--server", maker.url
    )
    assert done.returncode == 0, done.stderr
    assert "without denoising" in done.stderr
    with av.open(str(second)) as container:
        assert container.streams.video[0].average_rate == 24
    assert second.stat().st_size < first.stat().st_size
    assert record_of(second)["result"]["frames_sha256"] == record_of(first)["result"]["frames_sha256"]
    refused = invoke("redecode", id_of(done.stdout), "--crf", "99", "--server", maker.url)
    assert refused.returncode == 1
    assert "between" in refused.stderr


def test_a_video_starts_from_a_picture_and_goes_on_from_its_end(maker: LiveServer, tmp_path: Path) -> None:
    image, end = picture(tmp_path / "start.png"), picture(tmp_path / "end.png", (20, 200, 90))
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    options = ["--image", str(image), "--end-image", str(end), "--image-fit", "stretch", "--guidance-end", "0.5"]
    made = invoke("generate", PROMPT, *SMALL, *options, "--crf", "20", "-o", str(first), "--server", maker.url)
    assert made.returncode == 0, made.stderr
    request = record_of(first)["request"]
    assert (request["image_fit"], request["guidance_end"], request["crf"]) == ("stretch", 0.5, 20)
    assert request["image"] != request["end_image"]
    stored = maker.client.get(f"/api/v1/inputs/{request['image']}")
    assert stored.status_code == 200
    options = ["--steps", "2", "--model", "I2V-A14B", "--flow-shift", "4.5"]
    done = invoke("extend", id_of(made.stdout), "it turns", *options, "-o", str(second), "--server", maker.url)
    assert done.returncode == 0, done.stderr
    later = record_of(second)["request"]
    assert (later["extends"], later["prompt"], later["flow_shift"]) == (id_of(made.stdout), "it turns", 4.5)
    assert later["image"] not in (request["image"], request["end_image"])
    assert (later["width"], later["height"], later["num_frames"]) == (128, 128, 5)


@pytest.mark.parametrize(("model", "size"), [("tiny-i2v-a14b", 96), ("tiny-ti2v-5b", 128)])
def test_the_clip_begins_with_the_given_picture_and_moves_as_asked(
    maker: LiveServer, tmp_path: Path, model: str, size: int
) -> None:
    case = from_image(1, size)[0]
    assert case.image is not None
    image, target = tmp_path / "start.png", tmp_path / "clip.mp4"
    Image.fromarray(case.image).save(image)
    options = ["--model", model, "--image", str(image), "--seed", str(case.seed), "-o", str(target)]
    done = invoke("generate", case.scene.caption, *options, "--server", maker.url)
    assert done.returncode == 0, done.stderr
    frames = frames_of(target)
    assert frames.shape == (17, size, size, 3)
    assert likeness(frames[0], case.image) >= 24.0
    seen = observe(frames)
    assert (seen.colour, seen.background, seen.motion) == (
        case.scene.colour,
        case.scene.background,
        case.scene.motion,
    )


def test_what_cannot_work_is_said_before_anything_is_queued(maker: LiveServer, tmp_path: Path) -> None:
    before = maker.client.get("/api/v1/queue").json()["total_tasks"]
    missing = invoke("generate", PROMPT, "--image", str(tmp_path / "no.png"), "--server", maker.url)
    assert missing.returncode == 1
    assert "no.png cannot be read" in missing.stderr
    text = tmp_path / "text.png"
    text.write_text("no picture")
    invalid = invoke("generate", PROMPT, *SMALL, "--image", str(text), "--server", maker.url)
    assert invalid.returncode == 1
    assert "Invalid image file" in invalid.stderr
    unknown = invoke("extend", "no-such-video", "on", "--server", maker.url)
    assert unknown.returncode == 1
    assert "Video not found" in unknown.stderr
    folder = invoke("generate", PROMPT, "-o", str(tmp_path), "--server", maker.url)
    assert folder.returncode == 1
    assert "is a folder" in folder.stderr
    lora = invoke("generate", PROMPT, *QUICK, "--lora", "no-such-lora:0.5", "--server", maker.url)
    assert lora.returncode == 1
    assert "no LoRA" in lora.stderr
    assert maker.client.get("/api/v1/queue").json()["total_tasks"] == before


def test_a_form_and_json_say_the_same(maker: LiveServer, tmp_path: Path) -> None:
    client = ApiClient(maker.url, load_settings())
    wish = {
        "prompt": "x",
        "model_type": "I2V-A14B",
        "resolution": "128x128",
        "num_frames": 5,
        "steps": 1,
        "seed": 5,
        "keep_latents": True,
        "loras": [],
        "guidance_start": 0.25,
        "fps": None,
    }
    image = picture(tmp_path / "start.png")
    by_form = client.submit(wish, image=image)
    image_id = by_form["parameters"]["image"]
    assert client.has_image(image_id)
    assert not client.has_image("0" * 64)
    assert client.keep_image(image) == image_id
    by_json = client.submit(wish | {"image_id": image_id})
    assert by_json["parameters"] == by_form["parameters"]
    assert by_json["parameters"]["keep_latents"] is True
    for task in (by_form, by_json):
        maker.wait(task["task_id"], "completed")
    with pytest.raises(BadSettings, match="cannot be read"):
        client.submit(wish, image=tmp_path / "gone.png")
    with pytest.raises(WanError, match="Prompt"):
        client.submit(wish | {"prompt": " ", "image_id": image_id})
    client.close()


def test_a_stop_at_the_keyboard_cancels_every_variation(maker: LiveServer, tmp_path: Path) -> None:
    known = {task["id"] for task in maker.client.get("/api/v1/queue").json()["tasks"]}
    command = [sys.executable, "-m", "backend.cli", "generate", PROMPT, "--steps", "100", "--frames", "65"]
    options = ["--variations", "3", "--server", maker.url]
    process = subprocess.Popen([*command, *options], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)

    def queued() -> list[dict[str, str]]:
        return [task for task in maker.client.get("/api/v1/queue").json()["tasks"] if task["id"] not in known]

    wait_for(lambda: any(task["status"] == "processing" for task in queued()), what="the first to run")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Cancelled." in said
    assert len(queued()) == 3
    for task in queued():
        maker.wait(task["id"], "cancelled")


def test_a_lora_is_read_with_its_strengths() -> None:
    assert parse_lora("style") == {"id": "style"}
    assert parse_lora("style:0.5") == {"id": "style", "strength": 0.5}
    assert parse_lora("style:-1:0") == {"id": "style", "strength": -1.0, "strength_2": 0.0}


@pytest.mark.parametrize("text", ["", ":1", "style:strong", "style:1:2:3"])
def test_what_is_no_lora_is_a_usage_error(text: str) -> None:
    done = invoke("generate", PROMPT, f"--lora={text}")
    assert done.returncode == 2
    assert "STRENGTH" in done.stderr


def test_files_are_numbered_only_where_there_are_several(tmp_path: Path) -> None:
    clip = tmp_path / "a.b.mp4"
    assert target_of(clip, "1234567890", 1, 1) == clip
    assert target_of(clip, "1234567890", 2, 3) == tmp_path / "a.b-2.mp4"
    assert target_of(None, "1234567890", 2, 3) == Path("wan22-12345678.mp4")
