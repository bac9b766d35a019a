"""`wan22 loras` on a home folder, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import ModelShapes
from tests.commands.support import invoke
from tests.support.lora_files import comfyui_file, kohya_file, random_adapter, write_lora


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    shape = ModelShapes(EMBEDDED_MODELS).of(MODELS["tiny-t2v-a14b"])
    assert shape is not None
    folder = tmp_path / "downloads"
    (folder).mkdir()
    (folder / "evil.safetensors").write_bytes(b"\x80\x04 pickle" * 9)
    return {
        "high": write_lora(folder / "duo_high.safetensors", kohya_file(random_adapter(shape))),
        "low": write_lora(folder / "duo_low.safetensors", kohya_file(random_adapter(shape))),
        "solo": write_lora(
            folder / "solo.safetensors", comfyui_file(random_adapter(shape)), modelspec__trigger_phrase="glow"
        ),
        "evil": folder / "evil.safetensors",
    }


def test_a_lora_is_added_shown_listed_and_removed(tmp_path: Path, files: dict[str, Path]) -> None:
    home = tmp_path / "home"
    added = invoke("loras", "add", str(files["high"]), str(files["low"]), str(files["solo"]), home=home)
    assert added.returncode == 0, added.stderr
    assert "duo: fits tiny-t2v-a14b" in added.stdout
    assert "complete pair" in added.stdout
    listed = invoke("loras", "list", home=home).stdout
    assert "duo" in listed
    assert "high + low" in listed
    assert "glow" in listed
    shown = json.loads(invoke("loras", "show", "duo", home=home).stdout)
    assert [(file["expert"], file["format"]) for file in shown["files"]] == [("high", "kohya"), ("low", "kohya")]
    assert invoke("loras", "remove", "duo", home=home).returncode == 0
    assert [path.name for path in (home / "loras").glob("*.safetensors")] == ["solo.safetensors"]


def test_a_lora_may_stay_where_it_is(tmp_path: Path, files: dict[str, Path]) -> None:
    home = tmp_path / "home"
    linked = invoke("loras", "add", "--link", str(files["solo"]), home=home)
    assert linked.returncode == 0, linked.stderr
    assert (home / "loras" / "solo.safetensors").samefile(files["solo"])
    assert "glow" in invoke("loras", "list", home=home).stdout
    assert invoke("loras", "remove", "solo", home=home).returncode == 0
    assert list((home / "loras").glob("*.safetensors")) == []
    assert files["solo"].is_file()


def test_what_is_refused_is_a_sentence(tmp_path: Path, files: dict[str, Path]) -> None:
    home = tmp_path / "home"
    for arguments, said in (
        (["add", str(files["evil"])], "pickle"),
        (["add", str(tmp_path / "nothing.safetensors")], "cannot be read"),
        (["show", "nobody"], "no LoRA with this name"),
        (["remove", "nobody"], "no LoRA with this name"),
        (["show", "tiny_chalc"], "Did you mean tiny_chalk?"),
        (["show", "tiny-lightnin"], "Did you mean tiny_lightning?"),
    ):
        done = invoke("loras", *arguments, home=home)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
