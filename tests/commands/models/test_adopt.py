"""`wan22 models adopt` on folders of other programs, up to a clip made with what it adopted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.engine.loading.pipeline_loader import WanPipelineLoader
from backend.models.adoption.assembly import PartFile, Parts, assemble, part_files
from backend.models.adoption.recognition import recognise
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import ModelShapes
from tests.commands.support import invoke
from tests.support.lora_files import comfyui_file, random_adapter, write_lora
from tests.support.weight_files import a14b, sparse
from tests.support.weight_forms import write_gguf

TINY = EMBEDDED_MODELS / "tiny-t2v-a14b"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that nothing of the machine that runs the tests is looked at."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return folder


def test_files_are_listed_with_what_they_are_and_nothing_is_done(tmp_path: Path) -> None:
    root = tmp_path / "root"
    sparse(root / "wan2.2_t2v_high_noise_14B.safetensors", a14b())
    sparse(root / "wan2.2_t2v_low\nnoise_14B.safetensors", a14b())
    sparse(root / "x.safetensors", a14b())
    (root / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    home = tmp_path / "home"
    shown = invoke("models", "adopt", "--from", str(root), "--dry-run", home=home)
    assert shown.returncode == 0, shown.stderr
    told = " ".join(shown.stdout.split())
    assert "T2V-A14B/transformer" in told
    assert "bf16" in told
    assert "--use" in told
    assert "not supported" in told
    assert "zip" in told
    assert "vae, text_encoder, tokenizer" in told
    assert sorted(path.name for path in (home / "models").iterdir()) == []


def test_a_cached_model_is_adopted_and_makes_what_the_original_makes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = cache / "models--Wan-AI--Wan2.2-T2V-A14B-Diffusers" / "snapshots" / ("a" * 40)
    shutil.copytree(TINY, snapshot)
    home = tmp_path / "home"
    done = invoke("models", "adopt", home=home)
    assert done.returncode == 0, done.stderr
    assert "T2V-A14B is adopted and verified" in done.stdout
    folder = home / "models" / "T2V-A14B"
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").samefile(
        snapshot / "vae" / "diffusion_pytorch_model.safetensors"
    )
    assert "files are intact" in invoke("models", "verify", "T2V-A14B", home=home).stdout
    loader = WanPipelineLoader("cpu", threads=1)
    spec = replace(MODELS["tiny-t2v-a14b"], repo_id="someone/tiny")
    assert loader.load(folder, spec).vae_digest == loader.load(TINY, spec).vae_digest
    again = invoke("models", "adopt", home=home)
    assert "available" in again.stdout
    assert "adopted" not in again.stdout
    removed = invoke("models", "remove", "T2V-A14B", "--yes", home=home)
    assert removed.returncode == 0
    assert (snapshot / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_loose_files_become_a_model_that_the_engine_opens(tmp_path: Path) -> None:
    spec = replace(MODELS["tiny-t2v-a14b"], repo_id="someone/tiny")
    home = Home(tmp_path / "home").create()
    root = tmp_path / "root"
    root.mkdir()
    files: list[PartFile] = [PartFile(path, f"tokenizer/{path.name}") for path in (TINY / "tokenizer").iterdir()]
    for number, part in enumerate(("transformer", "transformer_2", "vae", "text_encoder")):
        path = root / f"my file {number}.safetensors"
        shutil.copyfile(next((TINY / part).glob("*.safetensors")), path)
        files += part_files(part, recognise(path))
    made = assemble(home, spec, Parts(tuple(files)))
    assert made.complete
    loader = WanPipelineLoader("cpu", threads=1)
    ours, original = loader.load(made.folder, spec), loader.load(TINY, spec)
    for part in ("transformer", "transformer_2", "vae", "text_encoder"):
        mine, theirs = (getattr(model, part).state_dict() for model in (ours, original))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_gguf_text_encoder_is_added_and_encodes_what_its_numbers_say(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "files")
    held = write_gguf(folder, "text_encoder", GGMLQuantizationType.Q8_0, table=2)
    experts = {part: next((folder / part).glob("*.safetensors")) for part in ("transformer", "transformer_2")}
    high, low = experts.values()
    (text,) = (folder / "text_encoder").glob("*.gguf")
    home = tmp_path / "home"
    options = ("--base", "tiny-t2v-a14b", "--high", str(high), "--low", str(low), "--part", str(text))
    done = invoke("models", "add", "mine", *options, home=home)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "The tokenizer inside it is not used: the model's own is" in told
    assert "mine is added, with the structure of tiny-t2v-a14b: ready" in told
    encoder = WanPipelineLoader("cpu", threads=1).load(home / "models" / "mine", MODELS["tiny-t2v-a14b"]).text_encoder
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in held.items())


def test_loras_of_other_programs_join_the_list(tmp_path: Path) -> None:
    root = tmp_path / "user" / "ComfyUI" / "models" / "loras"
    root.mkdir(parents=True)
    shape = ModelShapes(EMBEDDED_MODELS).of(MODELS["tiny-t2v-a14b"])
    assert shape is not None
    for name in ("glow_high", "glow_low"):
        write_lora(root / f"{name}.safetensors", comfyui_file(random_adapter(shape)))
    broken = comfyui_file(random_adapter(shape, seed=2))
    next(iter(broken[0].values())).view(-1)[0] = float("nan")
    write_lora(root / "broken.safetensors", broken)
    home = tmp_path / "home"
    shown = invoke("models", "adopt", "--dry-run", home=home)
    assert shown.returncode == 0, shown.stderr
    assert "LoRA glow_high.safetensors would be linked; it fits tiny-t2v-a14b" in " ".join(shown.stdout.split())
    assert invoke("models", "adopt", "--no-loras", home=home).returncode == 0
    assert list((home / "loras").glob("*.safetensors")) == []
    done = invoke("models", "adopt", home=home)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "LoRA broken.safetensors was left out. " in told
    assert "LoRA glow: glow_low.safetensors is linked; it fits tiny-t2v-a14b" in told
    listed = invoke("loras", "list", home=home).stdout
    assert "glow" in listed
    assert "high + low" in listed
    again = invoke("models", "adopt", home=home)
    assert "is linked" not in again.stdout
    assert invoke("loras", "remove", "glow", home=home).returncode == 0
    assert sorted(path.name for path in root.iterdir()) == [
        "broken.safetensors",
        "glow_high.safetensors",
        "glow_low.safetensors",
    ]


def test_loras_in_a_folder_that_comfyui_only_names_are_linked(tmp_path: Path) -> None:
    disk, ui, home = tmp_path / "disk", tmp_path / "ui", tmp_path / "home"
    (disk / "loras").mkdir(parents=True)
    ui.mkdir()
    shape = ModelShapes(EMBEDDED_MODELS).of(MODELS["tiny-t2v-a14b"])
    assert shape is not None
    write_lora(disk / "loras" / "glow_high.safetensors", comfyui_file(random_adapter(shape)))
    text = f"mine:\r\n  base_path: {disk}\r\n  loras: |\r\n    loras\r\n    gone\r\n"
    (ui / "extra_model_paths.yaml").write_bytes(text.encode("utf-16"))
    done = invoke("models", "adopt", "--from", str(ui), home=home)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "glow_high.safetensors is linked; it fits tiny-t2v-a14b" in told
    assert f"the folder {disk / 'gone'} of section mine does not exist" in told
    assert "glow" in invoke("loras", "list", home=home).stdout
    (ui / "extra_model_paths.yaml").write_text("mine: [")
    broken = invoke("models", "adopt", "--from", str(ui / "extra_model_paths.yaml"), home=home)
    assert broken.returncode == 0, broken.stderr
    assert "is not valid YAML at line 1, column 8, so the folders in it are not searched" in broken.stdout


def test_a_setting_names_folders_that_are_always_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse(tmp_path / "always" / "wan2.2_t2v_high_noise_14B.safetensors", a14b())
    monkeypatch.setenv("WAN22_MODEL_ROOTS", f'["{tmp_path / "always"}"]')
    shown = invoke("models", "adopt", "--dry-run", home=tmp_path / "home")
    assert "T2V-A14B/transformer" in shown.stdout


def test_disk_space_is_freed_only_on_yes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    partial = home / "models" / "T2V-A14B.partial"
    partial.mkdir(parents=True)
    (partial / "x").write_bytes(bytes(1000))
    shown = invoke("models", "cleanup", home=home)
    assert "can be deleted: unfinished of T2V-A14B" in shown.stdout
    assert "add --yes to delete" in shown.stdout
    assert partial.is_dir()
    done = invoke("models", "cleanup", "--yes", home=home)
    assert "were freed" in done.stdout
    assert not partial.exists()
    assert "Nothing to delete" in invoke("models", "cleanup", "--yes", home=home).stdout
