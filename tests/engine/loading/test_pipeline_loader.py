"""Opening folders: precision, errors for damaged folders, the digest of the weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.component_loader import build_component, fill, fit
from backend.engine.loading.model_files import check_model_files
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader, library_versions
from backend.models.folder.manager import EMBEDDED_MODELS

EXPERT_FILE = "transformer/diffusion_pytorch_model.safetensors"
ALL_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    EXPERT_FILE,
    "transformer_2/config.json",
    "transformer_2/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


@pytest.fixture
def folder(random_folder: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return shutil.copytree(random_folder, tmp_path / "model")


def change_index(folder: Path, **values: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_on_a_cpu_everything_is_float32_whatever_the_files_hold(folder: Path, spec: ModelSpec) -> None:
    for path in folder.rglob("*.safetensors"):
        save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    components = WanPipelineLoader("cpu").load(folder, spec)
    for module in (components.vae, components.text_encoder, components.transformer, components.transformer_2):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
        assert not module.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("model", ["tiny-t2v-a14b", "tiny-ti2v-5b"])
def test_every_parameter_equals_the_libraries_result_to_the_bit(model: str, dtype: torch.dtype) -> None:
    folder, spec = EMBEDDED_MODELS / model, MODELS[model]
    stock = WanPipeline.from_pretrained(folder, dtype={"default": dtype, "vae": torch.float32}, local_files_only=True)
    files = check_model_files(folder, spec)
    for name, config in files.configs.items():
        fitting = fit(spec, name, build_component(name, config), files.components[name], config)
        precision = torch.float32 if name == "vae" else dtype
        module, other = fill(fitting, folder / name, precision, torch.device("cpu")), getattr(stock, name)
        ours = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        theirs = dict(other.named_parameters(remove_duplicate=False)) | dict(other.named_buffers())
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key].dtype is value.dtype, key
            assert torch.equal(ours[key], value), key


def test_the_threads_setting_reaches_torch(spec: ModelSpec) -> None:
    before = torch.get_num_threads()
    try:
        WanPipelineLoader("cpu", threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(folder: Path, spec: ModelSpec, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelDamaged) as caught:
        WanPipelineLoader("cpu").load(folder, spec)
    assert name in caught.value.message
    assert str(folder) not in caught.value.message, "an answer must not show the server's paths"


@pytest.mark.parametrize("name", [name for name in ALL_FILES if name.endswith(".safetensors")])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:4],
        lambda content: b"",
        lambda content: b"\xff" * len(content),
    ],
    ids=["cut by a byte", "cut in the header", "empty", "overwritten"],
)
def test_a_damaged_weight_file_is_named(
    folder: Path, spec: ModelSpec, name: str, damage: Callable[[bytes], bytes]
) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ModelDamaged, match=name):
        WanPipelineLoader("cpu").load(folder, spec)


@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json", "tokenizer/tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_an_invalid_json_file_is_named(folder: Path, spec: ModelSpec, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelDamaged, match=name):
        WanPipelineLoader("cpu").load(folder, spec)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_json_saved_by_windows_editors_is_read_everywhere(folder: Path, spec: ModelSpec, encoding: str) -> None:
    plain = WanPipelineLoader("cpu").load(folder, spec).pipeline
    for path in folder.rglob("*.json"):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    pipeline = WanPipelineLoader("cpu").load(folder, spec).pipeline
    assert dict(pipeline.scheduler.config) == dict(plain.scheduler.config)
    assert pipeline.tokenizer("a red circle").input_ids == plain.tokenizer("a red circle").input_ids


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "transformer/config.json",
        "vae/config.json",
    ],
)
def test_a_configuration_that_selects_code_is_refused_and_nothing_is_imported(
    folder: Path, spec: ModelSpec, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    module = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    for place in (folder, (folder / name).parent):
        (place / "evil.py").write_text(module)
    plain = (folder / name).read_text()
    values = {
        "auto_map": {"AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]},
        "trust_remote_code": True,
        "custom_pipelines": {"evil": "evil.py"},
        "quantization_config": {"quant_method": "evil"},
        "_attn_implementation_internal": "somebody/kernel",
        "attn_implementation": "somebody/kernel",
    }
    for key, value in values.items():
        (folder / name).write_text(json.dumps(json.loads(plain) | {key: value}))
        with pytest.raises(ModelDamaged, match=f"{name} has the key {key}, which selects code"):
            WanPipelineLoader("cpu").load(folder, spec)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "transformer/config.json", "vae/config.json"])
def test_the_configuration_of_another_class_is_refused(folder: Path, spec: ModelSpec, name: str) -> None:
    content = json.loads((folder / name).read_text()) | {"_class_name": "StableDiffusionPipeline"}
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ModelDamaged, match=name):
        WanPipelineLoader("cpu").load(folder, spec)


def test_keys_and_files_that_the_classes_do_not_know_change_nothing(folder: Path, spec: ModelSpec) -> None:
    plain = WanPipelineLoader("cpu").load(folder, spec).pipeline
    for path in (*folder.glob("*/config.json"), *folder.glob("*/*_config.json"), folder / "model_index.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hooks": 3, "chat_template": "{{ 1 / 0 }}"}))
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    pipeline = WanPipelineLoader("cpu").load(folder, spec).pipeline
    assert dict(pipeline.transformer.config) == dict(plain.transformer.config)
    assert pipeline.tokenizer.chat_template is None
    assert pipeline.tokenizer("a red circle").input_ids == plain.tokenizer("a red circle").input_ids


def test_a_missing_tensor_is_not_filled_randomly(folder: Path, spec: ModelSpec) -> None:
    tensors = load_file(folder / EXPERT_FILE)
    del tensors["blocks.1.ffn.net.2.weight"]
    save_file(tensors, folder / EXPERT_FILE, metadata={"format": "pt"})
    with pytest.raises(ModelDamaged, match=r"blocks\.1\.ffn\.net\.2\.weight"):
        WanPipelineLoader("cpu").load(folder, spec)


def test_a_tensor_of_another_shape_is_refused(folder: Path, spec: ModelSpec) -> None:
    tensors = load_file(folder / EXPERT_FILE)
    tensors["proj_out.bias"] = torch.zeros(3)
    save_file(tensors, folder / EXPERT_FILE, metadata={"format": "pt"})
    with pytest.raises(ModelDamaged):
        WanPipelineLoader("cpu").load(folder, spec)


def test_pickled_weights_are_never_opened(folder: Path, spec: ModelSpec) -> None:
    path = folder / EXPERT_FILE
    torch.save(load_file(path), path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()
    with pytest.raises(ModelDamaged, match=EXPERT_FILE):
        WanPipelineLoader("cpu").load(folder, spec)


@pytest.mark.parametrize(
    "values",
    [
        {"boundary_ratio": None},
        {"boundary_ratio": 0.9},
        {"transformer_2": [None, None]},
        {"expand_timesteps": True},
        {"vae": ["my_code", "Autoencoder"]},
    ],
)
def test_an_index_that_contradicts_the_model_table_is_refused(
    folder: Path, spec: ModelSpec, values: dict[str, object]
) -> None:
    change_index(folder, **values)
    with pytest.raises(ModelDamaged, match=r"model_index\.json"):
        WanPipelineLoader("cpu").load(folder, spec)


def test_a_second_expert_is_refused_where_the_table_has_only_one(folder: Path, spec: ModelSpec) -> None:
    with pytest.raises(ModelDamaged, match="two experts"):
        WanPipelineLoader("cpu").load(folder, replace(spec, boundary_ratio=None))


def test_a_folder_of_another_pipeline_is_not_available(folder: Path, spec: ModelSpec) -> None:
    with pytest.raises(ModelUnavailable, match="must be a WanImageToVideoPipeline; its folder holds a WanPipeline"):
        WanPipelineLoader("cpu").load(folder, MODELS["tiny-i2v-a14b"])
    change_index(folder, _class_name="WanImageToVideoPipeline")
    with pytest.raises(ModelUnavailable, match="must be a WanPipeline"):
        WanPipelineLoader("cpu").load(folder, spec)


def test_folders_of_every_mode_can_be_opened(
    random_components: WanComponents, random_i2v: WanComponents, random_ti2v: WanComponents
) -> None:
    channels = [parts.transformer.config.in_channels for parts in (random_components, random_i2v, random_ti2v)]
    assert channels == [16, 36, 48]
    assert random_i2v.pipeline.image_encoder is None
    assert random_i2v.image_pipeline is random_i2v.pipeline
    assert random_i2v.boundary_ratio == 0.9
    assert random_ti2v.expand_timesteps
    assert random_ti2v.image_pipeline.config.expand_timesteps
    assert random_ti2v.image_pipeline.vae is random_ti2v.vae


def test_mixed_parts_of_different_modes_are_refused_by_name(
    random_folder: Path, random_i2v_folder: Path, random_ti2v_folder: Path, tmp_path: Path
) -> None:
    def mixed(base: Path, other: Path, part: str) -> Path:
        folder = shutil.copytree(base, tmp_path / f"{base.name}-{other.name}-{part}")
        shutil.rmtree(folder / part)
        shutil.copytree(other / part, folder / part)
        return folder

    loader = WanPipelineLoader("cpu")
    with pytest.raises(ModelDamaged, match="its vae makes latents of 16 channels; a ti2v model has 48"):
        loader.load(mixed(random_ti2v_folder, random_folder, "vae"), MODELS["tiny-ti2v-5b"])
    with pytest.raises(ModelDamaged, match="its vae makes latents of 48 channels; a t2v model has 16"):
        loader.load(mixed(random_folder, random_ti2v_folder, "vae"), MODELS["tiny-t2v-a14b"])
    with pytest.raises(ModelDamaged, match="its transformer_2 takes 16 input channels; a i2v model has 36"):
        loader.load(mixed(random_i2v_folder, random_folder, "transformer_2"), MODELS["tiny-i2v-a14b"])
    with pytest.raises(ModelDamaged, match="its transformer takes 36 input channels; a t2v model has 16"):
        loader.load(mixed(random_folder, random_i2v_folder, "transformer"), MODELS["tiny-t2v-a14b"])


def test_weights_under_the_configuration_of_another_mode_are_refused_by_name(
    folder: Path, random_i2v_folder: Path, spec: ModelSpec
) -> None:
    shutil.copy(random_i2v_folder / EXPERT_FILE, folder / EXPERT_FILE)
    with pytest.raises(ModelDamaged, match="its transformer takes 36 input channels"):
        WanPipelineLoader("cpu").load(folder, spec)


def test_a_decoder_alone_reads_neither_text_encoder_nor_experts(
    folder: Path, spec: ModelSpec, random_components: WanComponents, device: str
) -> None:
    parts = WanPipelineLoader(device).load_decoder(folder, spec)
    assert (parts.tokenizer, parts.text_encoder, parts.transformer, parts.transformer_2) == (None, None, None, None)
    latents = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(5)).to(parts.device)
    for ours, expected in zip(stream_frames(parts, latents), stream_frames(random_components, latents), strict=True):
        assert np.array_equal(ours, expected)
    assert parts.vae_digest == random_components.vae_digest


def test_every_shard_is_checked(folder: Path, spec: ModelSpec, random_components: WanComponents) -> None:
    path = folder / EXPERT_FILE
    tensors = load_file(path)
    names = sorted(tensors)
    shards = {"a-00001.safetensors": names[: len(names) // 2], "a-00002.safetensors": names[len(names) // 2 :]}
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, path.with_name(shard), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()
    components = WanPipelineLoader("cpu").load(folder, spec)
    for key, value in random_components.transformer.state_dict().items():
        assert torch.equal(components.transformer.state_dict()[key], value.to("cpu", torch.float32))
    path.with_name("a-00002.safetensors").unlink()
    with pytest.raises(ModelDamaged, match=r"transformer/a-00002\.safetensors"):
        check_model_files(folder, spec)


@pytest.mark.parametrize("name", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_cannot_lead_out_of_its_folder(folder: Path, spec: ModelSpec, name: str) -> None:
    index = folder / f"{EXPERT_FILE}.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelDamaged, match=r"index\.json"):
        check_model_files(folder, spec)


def test_the_digest_depends_on_every_weight_file_and_on_nothing_else(folder: Path, spec: ModelSpec) -> None:
    digest = WanPipelineLoader("cpu").load(folder, spec).weights_digest
    assert len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    (folder / "README.md").write_text("a note")
    assert check_model_files(folder, spec).digest() == digest
    of_vae = check_model_files(folder, spec).digest("vae")
    for path in sorted(folder.rglob("*.safetensors")):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert check_model_files(folder, spec).digest() != digest
        assert (check_model_files(folder, spec).digest("vae") != of_vae) == (path.parent.name == "vae")
        path.write_bytes(content)
    assert check_model_files(folder, spec).digest() == digest


def test_library_versions_are_known() -> None:
    assert library_versions()["torch"] == torch.__version__
