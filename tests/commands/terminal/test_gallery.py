"""`wan22 list`, `show`, `open`, `rm` and `queue`: ids by their beginning, `last`, JSON, and extras of a saved clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.commands.client import _one_id
from backend.core.errors.lookups import TaskNotFound
from backend.core.errors.requests import InvalidRequest
from tests.commands.support import PROMPT, QUICK, frames_of, invoke, record_of
from tests.support.server import LiveServer

UNKNOWN = "a dancing cat on a navy background"


@pytest.fixture(scope="module")
def clips(maker: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two finished videos on the server, the newer one last."""
    ids = []
    for seed in (31, 32):
        ids.append(maker.submit(seed=seed))
        maker.wait(ids[-1], "completed")
    return ids


@pytest.mark.usefixtures("clips")
def test_videos_are_listed_and_shown_by_the_beginning_of_their_ids(maker: LiveServer, clips: list[str]) -> None:
    listed = invoke("list", "--server", maker.url)
    assert listed.returncode == 0, listed.stderr
    rows = [line.split()[0] for line in listed.stdout.splitlines()[1:]]
    assert rows[:2] == [clips[1][:8], clips[0][:8]], "newest first"
    videos = json.loads(invoke("list", "-n", "1", "--json", "--server", maker.url).stdout)
    assert [video["id"] for video in videos] == [clips[1]]
    for text, found in (("last", clips[1]), (clips[0][:8], clips[0]), (clips[0].upper(), clips[0])):
        shown = invoke("show", text, "--json", "--server", maker.url)
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["id"] == found
    told = invoke("show", clips[0][:9], "--server", maker.url).stdout
    assert PROMPT in told
    assert "seed 31" in told


def test_a_video_is_saved_again_and_deleted_only_on_yes(maker: LiveServer, tmp_path: Path) -> None:
    task_id = maker.submit(seed=33)
    maker.wait(task_id, "completed")
    target = tmp_path / "again.mp4"
    assert invoke("show", task_id[:8], "-o", str(target), "--server", maker.url).returncode == 0
    assert record_of(target)["task_id"] == task_id
    opened = json.loads(invoke("open", "last", "--json", "--server", maker.url).stdout)
    assert (opened["id"], Path(opened["file"]).is_file()) == (task_id, True)
    refused = invoke("rm", task_id[:8], "--server", maker.url)
    assert refused.returncode == 1
    assert maker.client.get(f"/api/v1/outputs/{task_id}").status_code == 200
    gone = invoke("rm", task_id[:8], "--yes", "--json", "--server", maker.url)
    assert json.loads(gone.stdout) == {"deleted": [task_id]}
    assert maker.client.get(f"/api/v1/outputs/{task_id}").status_code == 404
    again = invoke("rm", task_id, "--yes", "--server", maker.url)
    assert again.returncode == 1
    assert "wan22 list" in again.stderr


def test_the_gallery_of_a_home_needs_no_running_server(tmp_path: Path) -> None:
    done = invoke("list", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "No videos yet" in done.stdout
    assert json.loads(invoke("list", "--json", home=tmp_path / "home").stdout) == []
    missing = invoke("show", "last", home=tmp_path / "home")
    assert missing.returncode == 1
    assert "There is none yet" in missing.stderr


@pytest.mark.parametrize(
    ("text", "found"),
    [("last", "bb01"), ("LAST", "bb01"), ("aa1", "aa11"), ("aa", "aa"), (" bb0 ", "bb01")],
)
def test_one_id_is_meant(text: str, found: str) -> None:
    ids = ["bb01", "aa11", "aa22", "aa"]
    assert _one_id(text, ids, TaskNotFound) == found


def test_what_means_several_ids_or_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 ids begin with a: "):
        _one_id("a", ["ab", "ac", "b"], TaskNotFound)
    with pytest.raises(TaskNotFound) as missing:
        _one_id("0f3d", ["0f3c9", "77777"], TaskNotFound)
    assert missing.value.next_steps == ("Did you mean 0f3c?",)
    for ids, text in (([], "last"), (["ab"], ""), (["ab"], "x")):
        with pytest.raises(TaskNotFound):
            _one_id(text, ids, TaskNotFound)


def test_the_queue_is_cancelled_by_prefix_watched_and_cleared(live_server: object, tmp_path: Path) -> None:
    assert callable(live_server)
    server: LiveServer = live_server(WAN22_WORKER="false")
    first, second = server.submit(), server.submit(seed=8)
    listed = json.loads(invoke("queue", "--json", home=server.home).stdout)
    assert [task["id"] for task in listed] == [second, first]
    assert invoke("queue", "cancel", "last", home=server.home).returncode == 0
    assert server.task(second)["status"] == "cancelled"
    done = invoke("queue", "cancel", "last", "--json", home=server.home)
    assert json.loads(done.stdout)["task_id"] == first, "the newest one that can be cancelled"
    watched = invoke("queue", "watch", home=server.home)
    assert watched.returncode == 0
    assert watched.stdout.count("cancelled") == 2
    lines = invoke("queue", "watch", "--json", home=server.home).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [first, second]
    assert "2 finished tasks" in invoke("queue", "clear", home=server.home).stdout
    assert json.loads(invoke("queue", "--json", home=server.home).stdout) == []


def test_a_clip_is_enlarged_shown_and_saved_as_a_gif_with_its_record(maker: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    extras = ["--upscale", "3", "--gif", "--show"]
    done = invoke("generate", PROMPT, *QUICK, *extras, "-o", str(target), "--server", maker.url)
    assert done.returncode == 0, done.stderr
    assert "64x64 enlarged to 192x192" in done.stdout
    assert frames_of(target).shape == (5, 192, 192, 3)
    record = record_of(target)
    assert record["enlarged"] == {"factor": 3, "method": "lanczos"}
    assert record["request"]["width"] == 64
    with Image.open(tmp_path / "clip.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (5, (192, 192), 0)
    rows = [line for line in done.stdout.splitlines() if line and set(line) <= set(" .:-=+*#%@")]
    assert len(rows) == 6, "without colours, six lines of shades"
    again = invoke("replay", str(target), "--check", "-o", str(tmp_path / "again.mp4"), "--server", maker.url)
    assert again.returncode == 0, again.stdout
    small = frames_of(tmp_path / "again.mp4")
    shrunk = np.stack([np.asarray(Image.fromarray(one).resize((64, 64))) for one in frames_of(target)])
    assert np.abs(shrunk.astype(int) - small).mean() < 4


def test_generate_answers_in_json_and_names_words_that_the_model_does_not_know(
    maker: LiveServer, tmp_path: Path
) -> None:
    target = tmp_path / "clip.mp4"
    done = invoke("generate", UNKNOWN, *QUICK, "--json", "-o", str(target), "--server", maker.url)
    assert done.returncode == 0, done.stderr
    (video,) = json.loads(done.stdout)
    assert video["file"] == str(target)
    (sentence,) = [one for one in video["warnings"] if "dancing" in one]
    assert "does not know: dancing, cat" in sentence
    assert "circle, square, triangle, ring" in sentence
    assert sentence in record_of(target)["result"]["warnings"]
    assert "does not know: dancing, cat" in done.stderr, "said when it is queued"
    known = invoke("generate", PROMPT, *QUICK, "--json", "-o", str(target), "--server", maker.url)
    assert json.loads(known.stdout)[0]["warnings"] == []
    assert "does not know" not in known.stderr
