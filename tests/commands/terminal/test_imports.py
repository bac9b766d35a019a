"""`wan22 import`: a clip comes back from elsewhere, and with it its settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands.support import invoke
from tests.services.foreign.clip_files import clip
from tests.support.server import LiveServer


def test_our_own_clip_is_imported_elsewhere_with_all_its_settings(
    maker: LiveServer, idle: LiveServer, tmp_path: Path
) -> None:
    task_id = maker.submit(seed=77)
    parameters = maker.wait(task_id, "completed")["parameters"]
    file, still = tmp_path / "clip.mp4", tmp_path / "still.jpg"
    file.write_bytes(maker.client.get(f"/api/v1/outputs/{task_id}/download").content)
    still.write_bytes(maker.client.get(f"/api/v1/outputs/{task_id}/thumbnail").content)

    printed = invoke("import", str(file), str(still), "--settings", "--json", "--server", idle.url)
    assert printed.returncode == 0, printed.stderr
    of_clip, of_still = json.loads(printed.stdout)
    assert of_clip["exact"]
    assert of_clip["settings"] == of_still["settings"]
    again = idle.client.post("/api/v1/generation/submit", json=of_clip["settings"])
    assert idle.task(again.json()["task_id"])["parameters"] == parameters

    imported = invoke("import", str(file), "--server", idle.url)
    assert imported.returncode == 0, imported.stderr
    assert "settings of wan22, which make the same clip again" in imported.stdout
    (video,) = idle.client.get("/api/v1/outputs", params={"imported": True}).json()["videos"]
    assert video["id"] in imported.stdout
    assert "already" in invoke("import", str(file), "--server", idle.url).stdout
    shown = invoke("show", video["id"], "--server", idle.url).stdout
    assert "elsewhere, imported" in shown
    assert video["id"][:8] in invoke("list", "--server", idle.url).stdout


def test_a_file_that_is_no_clip_is_refused_in_a_sentence(idle: LiveServer, tmp_path: Path) -> None:
    text = tmp_path / "list.mp4"
    text.write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    refused = invoke("import", str(text), "--server", idle.url)
    assert refused.returncode == 1
    assert "something else" in refused.stderr
    assert invoke("import", str(tmp_path / "gone.mp4"), "--server", idle.url).returncode != 0
    foreign = clip(tmp_path / "a.mp4", tags={"title": "holiday"})
    shown = invoke("import", str(foreign), "--server", idle.url)
    assert "no settings in it" in shown.stdout
    assert "title" in shown.stderr
