"""What the model manager says about folders on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS, put_in_force
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.paths import Home
from backend.models.folder.manager import ModelManager
from backend.models.own.configuration import table_of

T2V = MODELS["T2V-A14B"]
TINY = MODELS["tiny-t2v-a14b"]
PARTS = ("transformer", "transformer_2", "vae", "text_encoder", "tokenizer", "scheduler")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).create()


def _lay_out(folder: Path) -> Path:
    """Write the file names of a sharded diffusers folder; the manager never opens weights."""
    index: dict[str, object] = {"_class_name": "WanPipeline", "boundary_ratio": 0.875}
    for part in PARTS:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
        index[part] = ["diffusers", "Some"]
        if part in PARTS[:4]:
            (folder / part / "model-00001-of-00002.safetensors").write_bytes(b"1")
            (folder / part / "model-00002-of-00002.safetensors").write_bytes(b"2")
            shards = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
            (folder / part / "model.safetensors.index.json").write_text(json.dumps(shards))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_the_embedded_model_is_here_and_the_default(home: Home) -> None:
    manager = ModelManager(home, has_gpu=False)
    assert manager.state(TINY).available
    assert manager.folder(TINY).name == "tiny-t2v-a14b"
    assert manager.default() is TINY


def test_a_missing_model_says_what_it_needs_and_what_is_here(home: Home) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        ModelManager(home, has_gpu=False).folder(T2V)
    assert "Wan-AI/Wan2.2-T2V-A14B-Diffusers" in caught.value.message
    assert "68.9 GB" in caught.value.message
    assert any("tiny-t2v-a14b" in step for step in caught.value.next_steps)
    assert caught.value.status == 409


def test_the_images_of_a_request_and_the_gpu_decide_which_models_fit(home: Home) -> None:
    for name in ("T2V-A14B", "I2V-A14B", "TI2V-5B"):
        _lay_out(home.models / name)
    for name in ("tiny-t2v-a14b", "tiny-i2v-a14b", "tiny-ti2v-5b"):
        _lay_out(home.root / "embedded" / name)

    def ids(*, has_gpu: bool, **images: bool) -> list[str]:
        manager = ModelManager(home, has_gpu=has_gpu, embedded=home.root / "embedded")
        return [spec.id for spec in manager.fitting(**images)]

    assert ids(has_gpu=True) == ["T2V-A14B", "TI2V-5B", "tiny-t2v-a14b", "tiny-ti2v-5b"]
    assert ids(has_gpu=False) == ["tiny-t2v-a14b", "tiny-ti2v-5b", "T2V-A14B", "TI2V-5B"]
    assert ids(has_gpu=True, image=True) == ["I2V-A14B", "TI2V-5B", "tiny-i2v-a14b", "tiny-ti2v-5b"]
    assert ids(has_gpu=False, image=True, end_image=True) == ["tiny-i2v-a14b", "I2V-A14B"]


def test_an_expert_may_be_a_gguf_file(home: Home) -> None:
    folder = _lay_out(home.models / "T2V-A14B")
    for path in (folder / "transformer").glob("*.safetensors*"):
        path.unlink()
    (folder / "transformer" / "high_noise-Q4_K.gguf").write_bytes(b"GGUF")
    assert ModelManager(home, has_gpu=True).folder(T2V) == folder


def test_files_in_the_home_are_found_and_the_gpu_decides_the_default(home: Home) -> None:
    folder = _lay_out(home.models / "T2V-A14B")
    assert ModelManager(home, has_gpu=True).folder(T2V) == folder
    assert ModelManager(home, has_gpu=True).default() is T2V
    assert ModelManager(home, has_gpu=False).default() is TINY


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda f: (f / "transformer_2" / "model-00002-of-00002.safetensors").unlink(), "transformer_2/model-00002"),
        (lambda f: [p.unlink() for p in (f / "vae").iterdir()], "vae"),
        (lambda f: [p.unlink() for p in (f / "transformer").glob("*.safetensors*")], "no safetensors"),
        (lambda f: (f / "model_index.json").write_text("{"), "model_index.json"),
        (
            lambda f: (f / "vae" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x"}}'),
            "lists something that is not a safetensors file beside it",
        ),
    ],
)
def test_damage_is_named(home: Home, harm: object, word: str) -> None:
    folder = _lay_out(home.models / "T2V-A14B")
    assert callable(harm)
    harm(folder)
    with pytest.raises(ModelDamaged, match=word):
        ModelManager(home, has_gpu=True).folder(T2V)


def test_a_model_of_the_users_own_is_the_default_only_where_its_base_is_not_here(home: Home) -> None:
    put_in_force(table_of({"mine": {"base": "T2V-A14B"}, "small": {"base": "TI2V-5B"}}))
    for name in ("mine", "small", "TI2V-5B", "Wan2.1-T2V-14B"):
        _lay_out(home.models / name)
    manager = ModelManager(home, has_gpu=True)
    assert [spec.id for spec in manager.fitting()][:4] == ["mine", "Wan2.1-T2V-14B", "TI2V-5B", "small"]
    assert [spec.id for spec in manager.fitting(image=True)][:2] == ["TI2V-5B", "small"]
    _lay_out(home.models / "T2V-A14B")
    assert manager.default() is T2V
    assert ModelManager(home, has_gpu=False).default() is TINY
