"""`extra_model_paths.yaml`: the folders that it names, and a sentence for whatever is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.models.adoption.survey import scan_folders, usual_roots
from backend.models.download.extra_paths import MAX_BYTES, MAX_NOTES, follow
from backend.models.download.hub import RemoteFile
from backend.models.download.local_files import LocalFiles
from tests.support.weight_files import a14b, sparse

EXAMPLE = """\
# Rename this file, and ComfyUI loads it
stable:
    base_path: path/to/another-program/

    checkpoints: models/Stable-diffusion
    configs: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS

comfyui:
    base_path: {base}
    is_default: true
    checkpoints: models/checkpoints/
    diffusion_models: |
                 models/diffusion_models
                 models/unet
    loras: models/loras/
    custom_nodes: nodes

#other:
#    checkpoints: models/checkpoints
empty:
"""


def written(folder: Path, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "extra_model_paths.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def folders(root: Path, *names: str) -> list[Path]:
    made = [root / name for name in names]
    for path in made:
        path.mkdir(parents=True, exist_ok=True)
    return made


def test_the_folders_of_models_and_loras_are_followed_and_no_others(tmp_path: Path) -> None:
    names = ("models/checkpoints", "models/diffusion_models", "models/unet", "models/loras")
    expected = folders(tmp_path / "disk", *names)
    folders(tmp_path / "disk", "nodes")
    root = tmp_path / "ComfyUI"
    path = written(root, EXAMPLE.format(base=tmp_path / "disk"))
    by_folder, by_file = follow([root]), follow([path])
    assert by_folder.folders == by_file.folders == expected
    missing = root / "path/to/another-program"
    assert by_folder.notes == [f"{path}: the folder {missing} of section stable does not exist"]


def test_a_base_may_begin_with_the_home_folder_or_a_variable_or_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("MODEL_DISK", str(tmp_path / "disk"))
    expected = [
        *folders(tmp_path / "user", "a/vae"),
        *folders(tmp_path / "disk", "b/clip"),
        *folders(tmp_path / "ui", "c/loras", "plain"),
        *folders(tmp_path / "elsewhere", "unet"),
    ]
    text = "one: {base_path: ~/a, vae: vae}\ntwo: {base_path: $MODEL_DISK/b, clip: clip}\n"
    text += f"three: {{base_path: c, loras: loras}}\nfour: {{vae: plain, unet: {tmp_path}/elsewhere/unet}}\n"
    found = follow([written(tmp_path / "ui", text)])
    assert found.folders == expected
    assert found.notes == []


def test_the_defaults_come_first_and_each_folder_once(tmp_path: Path) -> None:
    vae, unet = folders(tmp_path, "vae", "unet")
    text = "one: {vae: vae}\ntwo: {is_default: true, unet: unet}\nthree: {vae: vae}\n"
    assert follow([tmp_path, written(tmp_path, text)]).folders == [unet, vae]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_editor_may_have_saved_the_file(tmp_path: Path, encoding: str) -> None:
    (expected,) = folders(tmp_path, "Modèles")
    found = follow([written(tmp_path, "ui:\r\n  vae: Modèles\r\n".encode(encoding))])
    assert found.folders == [expected]
    assert found.notes == []


MERGES = "".join(f"s{n + 1}: &s{n + 1}\n  <<: [{', '.join([f'*s{n}'] * 9)}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ui:\n  vae: [unclosed\n", "is not valid YAML at line 3, column 1"),
        ("ui: *nowhere\n", "is not valid YAML at line 1, column 5"),
        ("ui: !!python/object/apply:os.getcwd []\n", "is not valid YAML at line 1, column 5"),
        ("- a\n- b\n", "has no sections"),
        ("just text", "has no sections"),
        (b"ui:\n  vae: \xff\xfe\xfa\n", "is neither UTF-8 nor UTF-16 text"),
        ("ui: {vae: \x01}\n", "has characters that YAML does not allow"),
        ("ui: {is_default: !!bool maybe}\n", "has a value that cannot be read"),
        ("ui: {is_default: 2001-99-99}\n", "has a value that cannot be read"),
        ("[" * 5_000 + "]" * 5_000, "has a value that cannot be read"),
        (f"s0: &s0 {{vae: a}}\n{MERGES}", "has more than 16 aliases"),
        ("#" * (MAX_BYTES + 1), f"is larger than {MAX_BYTES // 1024} KiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = written(tmp_path, content)
    found = follow([tmp_path])
    assert found.folders == []
    assert found.notes == [f"{path} {reason}, so the folders in it are not searched"]


def test_what_is_wrong_in_one_section_leaves_the_others(tmp_path: Path) -> None:
    (vae,) = folders(tmp_path, "vae")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    text = f'a: {{base_path: 7, vae: vae}}\nb: {{loras: [vae]}}\nc: {{clip: loop, unet: file, vae: "{"n" * 5000}"}}\n'
    text += 'd: {clip: "\\0", loras: ~nobody-here/x}\ne: text\n7: {vae: vae, 8: x}\nself: &s {<<: *s, vae: vae}\n'
    found = follow([written(tmp_path, text)])
    assert found.folders == [vae]
    assert "`base_path` of section a is not a path" in found.notes[0]
    assert "`loras` of section b is not a path" in found.notes[1]
    assert len(found.notes) == 7


def test_many_missing_folders_are_counted_and_empty_files_are_fine(tmp_path: Path) -> None:
    lines = "".join(f"    gone{number}\n" for number in range(500))
    notes = follow([written(tmp_path, f"ui:\n  loras: |\n{lines}")]).notes
    assert len(notes) == MAX_NOTES + 1
    assert notes[-1].startswith("490 more entries")
    assert follow([written(tmp_path, "# nothing\n")]).notes == []
    path = written(tmp_path, "")
    path.unlink()
    os.mkfifo(path)
    assert follow([tmp_path, path]).folders == []


def test_a_scan_and_a_download_look_into_the_folders(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "unet"
    file = sparse(disk / "wan2.2_t2v_high_noise_14B.safetensors", a14b())
    (disk / "round").symlink_to(disk)
    written(tmp_path / "user" / "ComfyUI", f"ui:\n  base_path: {disk.parent}\n  unet: unet\n  vae: gone\n")
    survey = scan_folders(usual_roots(tmp_path / "user"))
    assert [found.path for found in survey.weights] == [file]
    assert len(survey.notes) == 1
    wanted = RemoteFile("x.safetensors", file.stat().st_size, "e" * 64, "b" * 40)
    assert list(LocalFiles([tmp_path / "user" / "ComfyUI"]).candidates(wanted)) == [file]
