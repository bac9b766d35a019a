"""A user's own model is taken in when its files are of the kind that was said, and its files are never touched."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from gguf import GGMLQuantizationType
from safetensors.numpy import load_file, save_file

from backend.core.catalogue.table import BUILT_IN, ModelSpec, models_in_force
from backend.core.catalogue.transformer import PUBLISHED
from backend.core.errors.lookups import StateConflict
from backend.core.errors.models import ModelDamaged, ModelUnavailable, ModelUnsupported
from backend.core.errors.requests import ModelMismatch
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.folder.integrity import check_quick
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager, Presence
from backend.models.folder.manifest import read_manifest
from backend.models.own.configuration import ModelConfigurationManager, table_of
from backend.models.own.folder_kind import FolderKind, check_folder
from backend.models.own.given_files import place_files
from backend.models.own.model_entry import ModelEntry
from backend.models.own.registration import OwnModels
from tests.support.hub import REPOSITORY, stand_in
from tests.support.weight_files import a14b, sparse, vae
from tests.support.weight_forms import write_gguf

T2V, I2V, TI2V = (EMBEDDED_MODELS / name for name in ("tiny-t2v-a14b", "tiny-i2v-a14b", "tiny-ti2v-5b"))
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def own(home: Home) -> OwnModels:
    return OwnModels(home, ModelConfigurationManager(home))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(T2V, tmp_path / "mine")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _entry(base: str = "tiny-t2v-a14b", **more: object) -> ModelEntry:
    return ModelEntry.read({"base": base} | more)


def _state(home: Home, spec: ModelSpec) -> Presence:
    return ModelManager(home, has_gpu=False).state(spec).presence


def test_a_folder_stays_where_it_is_and_is_used_there(home: Home, own: OwnModels, folder: Path) -> None:
    before = _files(folder)
    spec = own.add("mine", _entry("tiny", defaults={"steps": 4}), folder)
    assert ModelManager(home, has_gpu=False).folder(spec) == folder
    assert json.loads(home.config_file.read_text())["models"]["mine"]["base"] == "tiny-t2v-a14b"
    assert own.remove(spec) == 0
    assert models_in_force() == BUILT_IN
    assert _files(folder) == before


def test_a_copy_lies_in_the_home_folder_and_goes_with_the_model(home: Home, own: OwnModels, folder: Path) -> None:
    before = _files(folder)
    spec = own.add("mine", _entry(), folder, copy=True)
    assert _files(home.model_of("mine")) == before
    assert ModelManager(home, has_gpu=False).folder(spec) == home.model_of("mine")
    assert own.remove(spec) == sum(map(len, before.values()))
    assert not home.model_of("mine").exists()
    assert _files(folder) == before


def test_a_link_in_the_home_folder_goes_and_what_is_behind_it_stays(home: Home, own: OwnModels, folder: Path) -> None:
    home.model_of("mine").symlink_to(folder)
    spec = own.add("mine", _entry())
    assert _state(home, spec) is Presence.AVAILABLE
    own.remove(spec)
    assert not home.model_of("mine").is_symlink()
    assert (folder / "model_index.json").is_file()


def test_a_model_may_wait_for_its_files(home: Home, own: OwnModels) -> None:
    spec = own.add("mine", _entry(repository="me/mine"))
    assert _state(home, spec) is Presence.MISSING
    with pytest.raises(ModelUnavailable, match="files of me/mine") as caught:
        ModelManager(home, has_gpu=False).folder(spec)
    assert any("wan22 models download mine" in step for step in caught.value.next_steps)
    own.remove(spec)


def test_a_folder_that_went_away_is_said(home: Home, own: OwnModels, folder: Path) -> None:
    spec = own.add("mine", _entry(), folder)
    shutil.rmtree(folder)
    with pytest.raises(ModelUnavailable, match="its folder does not exist") as caught:
        ModelManager(home, has_gpu=False).folder(spec)
    assert not any(str(folder) in step for step in (caught.value.message, *caught.value.next_steps))


def _other_vae(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    shutil.copytree(TI2V / "vae", folder / "vae")


def _other_expert(folder: Path) -> None:
    shutil.rmtree(folder / "transformer_2")
    shutil.copytree(I2V / "transformer_2", folder / "transformer_2")


def _other_weights(folder: Path) -> None:
    shutil.copy(I2V / "transformer" / WEIGHTS, folder / "transformer" / WEIGHTS)


def _other_boundary(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"boundary_ratio": 0.9}))


def _one_expert(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"transformer_2": [None, None]}))


def _image_encoder(folder: Path) -> None:
    for part in ("transformer", "transformer_2"):
        config = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps(config | {"image_dim": 1280, "added_kv_proj_dim": 192}))


def _cut_off(folder: Path) -> None:
    file = folder / "transformer" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "transformer_2" / WEIGHTS).write_bytes(b"PK\x03\x04" + b"\0" * 64)


def _no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _no_vae(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).unlink()


def _no_configuration(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_other_vae, "latent channels of the autoencoder 48, not 16"),
        (_other_expert, "not of one kind"),
        (_other_weights, "patch_embedding.weight has the shape"),
        (_other_boundary, "boundary_ratio 0.9, not 0.875"),
        (_one_expert, "number of transformers 1, not 2"),
        (_image_encoder, "the weights are not what config.json says"),
        (_cut_off, "cannot be used"),
        (_no_index, "not a model folder in diffusers' layout"),
        (_no_vae, "incomplete or damaged: the folder vae has no safetensors or GGUF file"),
        (_no_configuration, "not that of a Wan transformer"),
    ],
)
def test_a_wrong_kind_is_refused_and_nothing_is_written(
    home: Home, own: OwnModels, folder: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(folder)
    before = _files(folder)
    with pytest.raises(ModelMismatch, match=sentence):
        own.add("mine", _entry(), folder, copy=True)
    assert _files(folder) == before
    assert not home.config_file.exists()
    assert list(home.models.iterdir()) == []


def _eight_bits(folder: Path) -> None:
    path = folder / "transformer_2" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = "blocks.1.attn1.to_v.weight"
    save_file(tensors | {name: np.zeros(tensors[name].shape, np.int8)}, path)


@pytest.mark.parametrize(
    ("harm", "sentence"), [(_pickle, "zip archive"), (_eight_bits, r"to_v\.weight is stored as int8 \(I8\)")]
)
def test_an_unsupported_form_is_refused_as_that(
    home: Home, own: OwnModels, folder: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(folder)
    before = _files(folder)
    with pytest.raises(ModelUnsupported, match=sentence):
        own.add("mine", _entry(), folder)
    assert _files(folder) == before
    assert not home.config_file.exists()


def test_a_folder_whose_form_is_not_supported_is_never_available(home: Home, own: OwnModels, folder: Path) -> None:
    spec = own.add("mine", _entry(), folder)
    models = ModelManager(home, has_gpu=False)
    assert models.state(spec).available
    _eight_bits(folder)
    state = models.state(spec)
    assert (state.presence, state.available) == (Presence.UNSUPPORTED, False)
    assert "in transformer_2, blocks.1.attn1.to_v.weight is stored as int8 (I8)" in str(state.reason)
    with pytest.raises(ModelUnsupported) as caught:
        models.folder(spec)
    assert "bf16" in caught.value.next_steps[0]
    shutil.copy(T2V / "transformer_2" / WEIGHTS, folder / "transformer_2" / WEIGHTS)
    assert models.state(spec).available


@pytest.mark.parametrize(
    ("base", "given", "really"),
    [
        ("tiny-t2v-a14b", I2V, "tiny-i2v-a14b"),
        ("tiny-i2v-a14b", T2V, "tiny-t2v-a14b"),
        ("tiny-t2v-a14b", TI2V, "tiny-ti2v-5b"),
        ("T2V-A14B", T2V, "tiny-t2v-a14b"),
    ],
)
def test_a_wrong_base_is_refused_with_the_right_one(own: OwnModels, base: str, given: Path, really: str) -> None:
    with pytest.raises(ModelMismatch, match=f"has the structure of {really}, not like {base}") as caught:
        own.add("mine", _entry(base), given)
    assert caught.value.next_steps == (f"Add it with `--base {really}`.",)


def test_a_distilled_folder_is_told_by_the_pipeline_that_it_names() -> None:
    shape = PUBLISHED["TI2V-5B"]
    five = FolderKind("WanPipeline", 1, None, True, transformer=shape, latent_channels=48, image_encoder=False)
    fast = replace(five, pipeline="WanDMDPipeline")
    fitting = {
        kind.pipeline: [spec.id for spec in BUILT_IN.specs if kind.why_not(spec) is None] for kind in (five, fast)
    }
    assert fitting == {"WanPipeline": ["TI2V-5B"], "WanDMDPipeline": ["FastWan2.2-TI2V-5B"]}


def test_what_is_there_already_is_never_overwritten(home: Home, own: OwnModels, folder: Path) -> None:
    home.model_of("mine").mkdir()
    (home.model_of("mine") / "notes.txt").write_text("mine")
    with pytest.raises(StateConflict, match="already"):
        own.add("mine", _entry(), folder, copy=True)
    assert (home.model_of("mine") / "notes.txt").read_text() == "mine"
    own.add("other", _entry(), folder)
    with pytest.raises(BadSettings, match="already"):
        own.add("other", _entry(), folder)
    with pytest.raises(BadSettings, match="belongs to T2V-A14B"):
        own.add("t2v", _entry(), folder)


def test_a_copy_waits_for_nobody_who_changes_the_same_folder(home: Home, own: OwnModels, folder: Path) -> None:
    with (
        FileLock(home.model_lock_of("mine"), thread_local=False),
        pytest.raises(ModelUnavailable, match="another process"),
    ):
        own.add("mine", _entry(), folder, copy=True)
    own.add("mine", _entry(), folder, copy=True)


@pytest.fixture
def loose(tmp_path: Path) -> dict[str, Path]:
    """Single files under names of the user's: experts and autoencoders of the tiny family."""
    folder = tmp_path / "loose"
    folder.mkdir()
    sources = {
        "high": T2V / "transformer",
        "low": T2V / "transformer_2",
        "five": TI2V / "transformer",
        "vae16": T2V / "vae",
        "vae48": TI2V / "vae",
        "image_high": I2V / "transformer",
    }
    return {
        name: Path(shutil.copy(source / WEIGHTS, folder / f"mine_{name}_noise.safetensors"))
        for name, source in sources.items()
    }


def test_single_files_become_a_model_with_what_the_base_has(home: Home, own: OwnModels, loose: dict[str, Path]) -> None:
    manager = ModelManager(home, has_gpu=False)
    before = {path: path.read_bytes() for path in loose.values()}
    named = {"transformer": loose["high"], "transformer_2": loose["low"]}
    spec, notes = own.add_files("mine", _entry("tiny"), named, models=manager)
    assert notes == ("vae, text_encoder, tokenizer are taken from tiny-t2v-a14b",)
    folder = manager.folder(spec)
    assert (folder / "transformer" / loose["high"].name).samefile(loose["high"])
    check_folder(folder, spec)
    only = {"transformer": loose["five"]}
    five, _ = own.add_files("five", _entry("tiny-ti2v"), only, [loose["vae48"]], models=manager)
    assert (manager.folder(five) / "vae" / loose["vae48"].name).is_file()
    for one in (spec, five):
        assert own.remove(one) > 0
    assert [path.name for path in home.models.iterdir() if path.suffix != ".lock"] == []
    assert {path: path.read_bytes() for path in loose.values()} == before


def test_a_text_encoder_with_names_of_llama_goes_with_the_tokenizer_of_the_base(
    home: Home, own: OwnModels, loose: dict[str, Path], folder: Path
) -> None:
    write_gguf(folder, "text_encoder", GGMLQuantizationType.Q8_0, table=2)
    (file,) = (folder / "text_encoder").glob("*.gguf")
    manager = ModelManager(home, has_gpu=False)
    named = {"transformer": loose["high"], "transformer_2": loose["low"]}
    spec, notes = own.add_files("mine", _entry("tiny"), named, [file], models=manager)
    assert notes == (
        f"{file.name}: The tokenizer inside it is not used: the model's own is",
        "vae, tokenizer are taken from tiny-t2v-a14b",
    )
    made = manager.folder(spec)
    assert (made / "text_encoder" / file.name).samefile(file)
    assert (made / "tokenizer" / "tokenizer.json").read_bytes() == (T2V / "tokenizer" / "tokenizer.json").read_bytes()
    own.remove(spec)
    assert file.is_file()


_HIGH = "the expert for high noise"


@pytest.mark.parametrize(
    ("base", "given", "others", "sentence"),
    [
        ("tiny-t2v-a14b", "low", (), f"mine_low_noise.safetensors is tiny-t2v-a14b low noise, and {_HIGH}"),
        ("tiny-t2v-a14b", "vae16", (), f"is tiny VAE of 16 channels, and {_HIGH}"),
        ("tiny-t2v-a14b", "high", ("vae48",), "is tiny VAE of 48 channels, and a part of tiny-t2v-a14b"),
        ("tiny-i2v-a14b", "high", (), f"is tiny-t2v-a14b high noise, and {_HIGH} of tiny-i2v-a14b"),
        ("tiny-t2v-a14b", "image_high", (), f"is tiny-i2v-a14b high noise, and {_HIGH} of tiny-t2v-a14b"),
        ("TI2V-5B", "five", (), "is tiny-ti2v-5b, and the transformer of TI2V-5B"),
        ("tiny-t2v-a14b", "high", ("high",), f"are both given as {_HIGH}"),
    ],
)
def test_a_file_in_the_wrong_place_is_refused_with_what_it_is(
    home: Home, own: OwnModels, loose: dict[str, Path], base: str, given: str, others: tuple[str, ...], sentence: str
) -> None:
    rest = [loose[name] for name in others]
    with pytest.raises(ModelMismatch, match=sentence):
        own.add_files(
            "mine", _entry(base), {"transformer": loose[given]}, rest, models=ModelManager(home, has_gpu=False)
        )
    assert not home.config_file.exists()
    assert list(home.models.iterdir()) == []


def test_where_tensors_leave_a_doubt_the_base_decides_and_it_is_said(tmp_path: Path) -> None:
    table = table_of({"old": {"base": "Wan2.1-T2V-14B"}, "new": {"base": "T2V-A14B"}})
    file = sparse(tmp_path / "x" / "models" / "model.safetensors", a14b())
    old = place_files(table.find("old"), {"transformer": file})
    assert [part.name for part in old.files] == ["transformer/model.safetensors"]
    assert old.notes == (
        "model.safetensors is used as Wan2.1-T2V-14B, as you chose; "
        "its tensors also fit T2V-A14B high noise or T2V-A14B low noise",
    )
    new = place_files(table.find("new"), {"transformer_2": file})
    assert "is used as T2V-A14B low noise, as you chose" in new.notes[0]
    with pytest.raises(ModelMismatch, match="can be either expert of T2V-A14B") as caught:
        place_files(table.find("new"), {}, [file])
    assert "--high" in caught.value.next_steps[0]
    named = sparse(tmp_path / "x" / "models" / "wan2.1_t2v_14B_bf16.safetensors", a14b())
    with pytest.raises(ModelMismatch, match=f"is Wan2.1-T2V-14B, and {_HIGH} of T2V-A14B was expected"):
        place_files(table.find("new"), {"transformer": named})
    assert place_files(table.find("old"), {"transformer": named}).notes == ()


def test_a_pickle_is_no_file_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(ModelUnsupported, match="The file is a zip archive"):
        place_files(BUILT_IN.find("tiny"), {"transformer": file})


def test_a_model_that_lacks_parts_waits_for_the_repository_of_its_base(
    home: Home, own: OwnModels, tmp_path: Path
) -> None:
    wan_vae = sparse(tmp_path / "wan_2.1_vae.safetensors", vae(16))
    spec, notes = own.add_files(
        "mine", _entry("Wan2.1-T2V-1.3B"), {}, [wan_vae], models=ModelManager(home, has_gpu=False)
    )
    assert notes == ("transformer, text_encoder, tokenizer of Wan2.1-T2V-1.3B come with `wan22 models download mine`",)
    assert spec.repo_id == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert _state(home, spec) is Presence.PARTIAL
    own.remove(spec)
    assert wan_vae.is_file()
    assert not home.partial_model_of("mine").exists()


def test_a_lost_file_of_the_users_own_is_never_replaced_by_the_bases(
    home: Home, own: OwnModels, loose: dict[str, Path], published: dict[str, bytes]
) -> None:
    models = ModelManager(home, has_gpu=False)
    named = {"transformer": loose["high"], "transformer_2": loose["low"]}
    spec, _ = own.add_files("mine", _entry("tiny", repository=REPOSITORY), named, models=models)
    lost = models.folder(spec) / "transformer" / loose["high"].name
    lost.unlink()
    with stand_in(published) as hub:
        downloader = ModelDownloader(home, models, Hub(hub.endpoint))
        manifest = read_manifest(home.model_of("mine"))
        assert manifest is not None
        with pytest.raises(ModelDamaged, match="is your own file, so it cannot be downloaded") as caught:
            downloader.repair(spec, check_quick(home.model_of("mine"), manifest))
        assert "add it again" in caught.value.next_steps[0]
        with pytest.raises(ModelDamaged, match="is your own file, so it cannot be downloaded"):
            downloader.download(spec)
        assert hub.fetched() == Counter()
    assert not lost.exists()


def test_auto_prefers_the_built_in_model_to_one_that_is_built_like_it(home: Home, own: OwnModels, folder: Path) -> None:
    own.add("mine", _entry(), folder)
    for has_gpu in (False, True):
        manager = ModelManager(home, has_gpu=has_gpu)
        assert manager.default().id == "tiny-t2v-a14b"
        assert "mine" in [spec.id for spec in manager.fitting()]
