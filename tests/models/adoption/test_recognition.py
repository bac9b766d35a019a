"""What files are is read from their content: real names and full-size shapes, before a hole instead of numbers."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from backend.core.catalogue.architecture import ARCHITECTURES, count
from backend.core.catalogue.table import MODELS
from backend.models.adoption.recognition import KNOWN_FILES, recognise
from backend.models.adoption.structure import Kind, Naming, Use
from backend.models.folder.manager import EMBEDDED_MODELS
from tests.support.weight_files import (
    a14b,
    image_encoder,
    sparse,
    sparse_gguf,
    text_encoder,
    transformer,
    vae,
    wan21_i2v,
    with_scales,
)

Q4_K = gguf.GGMLQuantizationType.Q4_K
TI2V = transformer(3072, 14336, 30, 48, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name, and the one above, say nothing."""
    folder = tmp_path / "models" / "diffusion_models"
    folder.mkdir(parents=True)
    return folder


def _names(path: Path) -> list[str]:
    return [identity.name for identity in recognise(path).identities]


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", 16, Use("T2V-A14B", "transformer")),
        ("wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors", 16, Use("T2V-A14B", "transformer_2")),
        ("wan2.2_i2v_high_noise_14B_fp16.safetensors", 36, Use("I2V-A14B", "transformer")),
        ("Wan2_2-I2V-A14B_LOW_bf16.safetensors", 36, Use("I2V-A14B", "transformer_2")),
        ("Wan2.2-T2V-A14B-HighNoise.safetensors", 16, Use("T2V-A14B", "transformer")),
        ("wan22_text2video_14B_low_mbf16.safetensors", 16, Use("T2V-A14B", "transformer_2")),
    ],
)
def test_an_expert_is_known_by_its_structure_and_its_name(
    folder: Path, name: str, channels: int, expected: Use
) -> None:
    found = recognise(sparse(folder / name, a14b(channels)))
    assert (found.kind, found.naming, found.uses) == (Kind.TRANSFORMER, Naming.ORIGINAL, (expected,))
    assert found.precision == ("bf16",)


@pytest.mark.parametrize("naming", ["original", "prefixed", "diffusers"])
def test_all_spellings_of_the_tensors_are_understood(folder: Path, naming: str) -> None:
    prefix = "model.diffusion_model." if naming == "prefixed" else ""
    shapes = a14b(36, original=naming != "diffusers", prefix=prefix)
    found = recognise(sparse(folder / "wan2.2_i2v_low_noise.safetensors", shapes))
    assert found.uses == (Use("I2V-A14B", "transformer_2"),)
    assert found.naming is (Naming.DIFFUSERS if naming == "diffusers" else Naming.ORIGINAL)


def test_a_file_that_could_be_wan21_or_either_expert_is_ambiguous(folder: Path) -> None:
    found = recognise(sparse(folder / "model.safetensors", a14b()))
    assert found.ambiguous
    assert found.uses == ()
    assert "Neither its name nor its tensors" in found.note
    assert {it.name for it in found.identities} == {"T2V-A14B high noise", "T2V-A14B low noise", "Wan2.1-T2V-14B"}
    chosen = found.choose(Use("T2V-A14B", "transformer_2"))
    assert chosen is not None
    assert chosen.uses == (Use("T2V-A14B", "transformer_2"),)
    assert found.choose(Use("TI2V-5B", "transformer")) is None


def test_wan21_is_never_taken_for_wan22(folder: Path) -> None:
    found = recognise(sparse(folder / "wan2.1_t2v_14B_bf16.safetensors", a14b()))
    assert [it.name for it in found.identities] == ["Wan2.1-T2V-14B"]
    assert found.uses == (Use("Wan2.1-T2V-14B", "transformer"),)


@pytest.mark.parametrize("original", [True, False])
def test_the_i2v_models_of_wan21_are_told_apart_by_their_names(folder: Path, original: bool) -> None:
    shapes = wan21_i2v(original=original)
    for name, model in (
        ("wan2.1_i2v_480p_14B_fp16.safetensors", "Wan2.1-I2V-14B-480P"),
        ("Wan2_1-I2V-14B-720P_fp8.safetensors", "Wan2.1-I2V-14B-720P"),
    ):
        found = recognise(sparse(folder / name, shapes))
        assert (found.kind, found.uses) == (Kind.TRANSFORMER, (Use(model, "transformer"),))
    for name in ("wan2.1_i2v_14B.safetensors", "model.safetensors", "wan2.2_i2v_high_noise_14B.safetensors"):
        doubtful = recognise(sparse(folder / name, shapes))
        assert (doubtful.ambiguous, doubtful.uses) == (True, ())
        assert "Neither its name nor its tensors" in doubtful.note
        assert [it.name for it in doubtful.identities] == ["Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P"]


def test_a_transformer_for_a_first_and_a_last_frame_is_none_of_them(folder: Path) -> None:
    shapes = wan21_i2v() | {"img_emb.emb_pos": (1, 514, 1280)}
    found = recognise(sparse(folder / "wan2.1_flf2v_720p_14B_fp16.safetensors", shapes))
    assert (found.kind, found.uses) == (Kind.UNKNOWN, ())


def test_an_expert_without_its_noise_stays_ambiguous_but_is_no_wan21(folder: Path) -> None:
    names = _names(sparse(folder / "wan2.2_t2v_14B.safetensors", a14b()))
    assert names == ["T2V-A14B high noise", "T2V-A14B low noise"]


def test_a_name_that_contradicts_the_tensors_settles_nothing(folder: Path) -> None:
    found = recognise(sparse(folder / "wan2.2_t2v_high_noise_14B.safetensors", a14b(36)))
    assert found.uses == ()
    assert "disagree about the kind" in found.note


@pytest.mark.parametrize("name", ["wan2.2_fun_inpaint_high_noise_14B.safetensors", "Wan2.2-S2V-14B_high.safetensors"])
def test_relatives_of_the_same_structure_are_not_adopted(folder: Path, name: str) -> None:
    found = recognise(sparse(folder / name, a14b(36)))
    assert found.uses == ()
    assert "variant of Wan2.2" in found.note


def test_a_known_digest_decides_against_the_name(folder: Path) -> None:
    low = next(sha256 for sha256, (_, name) in KNOWN_FILES.items() if name == "I2V-A14B low noise")
    found = recognise(sparse(folder / "something_high_noise.safetensors", a14b(36)), sha256=low)
    assert found.uses == (Use("I2V-A14B", "transformer_2"),)


def test_a_doubtful_file_of_a_known_size_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sparse(folder / "model.safetensors", a14b(36))
    low = next(sha256 for sha256, (_, name) in KNOWN_FILES.items() if name == "I2V-A14B low noise")
    monkeypatch.setitem(KNOWN_FILES, low, (path.stat().st_size, "I2V-A14B low noise"))
    read: list[Path] = []

    def digest(file: Path) -> str:
        read.append(file)
        return low

    assert recognise(path, digest=digest).uses == (Use("I2V-A14B", "transformer_2"),)
    assert read == [path]


def test_the_names_in_a_cache_are_not_looked_for_in_its_hashes(tmp_path: Path) -> None:
    revision = "2" * 2 + "a14b" + "0" * 34
    folder = tmp_path / "models--someone--some-model" / "snapshots" / revision
    assert len(_names(sparse(folder / "model.safetensors", a14b()))) == 3
    named = tmp_path / "models--Wan-AI--Wan2.2-Fun-A14B-InP" / "snapshots" / revision / "high_noise_model"
    assert recognise(sparse(named / "model.safetensors", a14b(36))).uses == ()


def test_diffusers_folders_name_the_expert(tmp_path: Path) -> None:
    for part in ("transformer", "transformer_2"):
        sparse(tmp_path / "Wan2.2" / part / "model.safetensors", a14b(original=False))
    for part in ("transformer", "transformer_2"):
        assert recognise(tmp_path / "Wan2.2" / part / "model.safetensors").uses == (Use("T2V-A14B", part),)


def test_ti2v_needs_no_name(folder: Path) -> None:
    found = recognise(sparse(folder / "x.safetensors", TI2V, "F16"))
    assert (found.uses, found.precision) == ((Use("TI2V-5B", "transformer"),), ("fp16",))


def test_the_distilled_5b_is_told_by_its_name(tmp_path: Path) -> None:
    cache = tmp_path / "models--FastVideo--FastWan2.2-TI2V-5B-FullAttn-Diffusers" / "snapshots" / ("0" * 40)
    for path in (tmp_path / "Wan2_2-TI2V-5B-FastWan_fp16.safetensors", cache / "transformer" / "model.safetensors"):
        assert recognise(sparse(path, TI2V)).uses == (Use("FastWan2.2-TI2V-5B", "transformer"),)
    assert recognise(sparse(tmp_path / "wan2.2_ti2v_5B.safetensors", TI2V)).uses == (Use("TI2V-5B", "transformer"),)


def test_the_shapes_written_down_here_are_those_of_the_models() -> None:
    for model, shapes in (("T2V-A14B", a14b()), ("TI2V-5B", TI2V)):
        numbers = sum(int(np.prod(shape)) for shape in shapes.values())
        assert numbers == count(ARCHITECTURES[model].transformer)


def test_smaller_wan21_models_are_named(folder: Path) -> None:
    shapes = transformer(1536, 8960, 30, 16, 16)
    found = recognise(sparse(folder / "x.safetensors", shapes))
    assert ([it.name for it in found.identities], found.uses) == (
        ["Wan2.1-T2V-1.3B"],
        (Use("Wan2.1-T2V-1.3B", "transformer"),),
    )


def test_further_parts_and_lacking_parts_make_another_model(folder: Path) -> None:
    more = a14b() | {"vace_blocks.0.before_proj.weight": (5120, 5120)}
    assert "vace_blocks" in recognise(sparse(folder / "wan2.2_high_noise.safetensors", more)).note
    less = a14b()
    del less["blocks.7.ffn.0.weight"]
    found = recognise(sparse(folder / "wan2.2_low_noise.safetensors", less))
    assert (found.kind, found.uses) == (Kind.UNKNOWN, ())
    assert "lacks" in found.note


def test_eight_bits_with_scales_are_told_from_those_without(folder: Path) -> None:
    plain = recognise(sparse(folder / "wan2.2_t2v_low_noise_a.safetensors", a14b(), "F8_E4M3"))
    scaled = recognise(sparse(folder / "wan2.2_t2v_low_noise_b.safetensors", with_scales(a14b()), "F8_E4M3"))
    assert (plain.precision, scaled.precision) == (("fp8_e4m3fn",), ("fp8_e4m3fn scaled",))
    assert plain.uses == scaled.uses == (Use("T2V-A14B", "transformer_2"),)


def test_gguf_transformers_and_text_encoders(folder: Path) -> None:
    path = sparse_gguf(folder / "Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf", a14b(), Q4_K)
    found = recognise(path)
    assert (found.uses, found.naming) == ((Use("T2V-A14B", "transformer"),), Naming.ORIGINAL)
    assert found.precision[0] == "Q4_K"
    text = recognise(sparse_gguf(folder / "umt5.gguf", text_encoder("gguf"), Q4_K, "t5encoder"))
    assert (text.kind, text.naming) == (Kind.TEXT_ENCODER, Naming.LLAMA)
    assert {use.model for use in text.uses} == {spec.id for spec in MODELS.values() if not spec.embedded}
    assert "tokenizer inside it is not used" in text.note


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"enc.blk.7.attn_rel_b.weight": None}, "enc.blk.7.attn_rel_b.weight is missing"),
        ({"enc.blk.3.attn_rel_b.weight": (64, 32)}, "attn_rel_b.weight has the shape [64, 32], not [32, 64]"),
        ({"dec.blk.0.attn_q.weight": (4096, 4096)}, "dec.blk.0.attn_q.weight has no place in an encoder"),
        ({"token_embd.weight": (32128, 4096)}, "32128 words that no supported model uses"),
    ],
)
def test_a_text_encoder_that_could_not_be_loaded_is_told_by_the_tensor_that_is_wrong(
    folder: Path, change: dict[str, tuple[int, ...] | None], note: str
) -> None:
    shapes = {name: shape for name, shape in (text_encoder("gguf") | change).items() if shape is not None}
    found = recognise(sparse_gguf(folder / "umt5.gguf", shapes, Q4_K, "t5encoder"))
    assert (found.kind, found.uses) == (Kind.UNKNOWN, ())
    assert note in found.note


def test_the_encoder_of_a_model_that_has_a_decoder_too_is_found_under_the_librarys_names(folder: Path) -> None:
    whole = text_encoder() | {"decoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "lm_head.weight": (4, 4)}
    assert recognise(sparse(folder / "umt5.safetensors", whole)).kind is Kind.TEXT_ENCODER
    assert recognise(sparse(folder / "t5.safetensors", text_encoder("wan") | {"head.weight": (4, 4)})).uses == ()


def test_our_gguf_header_agrees_with_the_packages_reader(tmp_path: Path) -> None:
    from backend.core.formats.gguf import read_gguf_header

    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "wan")
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "ü"])
    writer.add_array("comfy.gguf.orig_shape.folded", [2, 3, 4, 1, 1])
    writer.add_tensor("plain", np.zeros((3, 5), np.float32))
    writer.add_tensor("folded", np.zeros((24,), np.float16))
    data = gguf.quants.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blocks", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(tmp_path / "small.gguf")
    reader = gguf.GGUFReader(tmp_path / "small.gguf")
    for tensor in reader.tensors:
        ours = header.tensors[tensor.name]
        assert ours.dtype == tensor.tensor_type.name
        if tensor.name != "folded":
            assert ours.shape == tuple(int(side) for side in tensor.shape[::-1])
    assert header.tensors["folded"].shape == (2, 3, 4, 1, 1)
    assert set(header.fields) >= {key for key in reader.fields if not key.startswith("GGUF.")}


@pytest.mark.parametrize("naming", ["hf", "wan"])
def test_text_encoders_in_both_spellings(folder: Path, naming: str) -> None:
    found = recognise(sparse(folder / "t5.safetensors", text_encoder(naming)))
    assert found.kind is Kind.TEXT_ENCODER
    assert [it.name for it in found.identities] == ["UMT5-XXL"]


def test_the_t5_of_other_models_is_not_umt5(folder: Path) -> None:
    found = recognise(sparse(folder / "t5xxl_fp16.safetensors", text_encoder(words=32128)))
    assert (found.kind, found.uses) == (Kind.UNKNOWN, ())
    assert "32128 words" in found.note


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_the_image_encoder_of_wan21(folder: Path, prefix: str) -> None:
    found = recognise(sparse(folder / "clip_vision_h.safetensors", image_encoder(prefix=prefix)))
    assert found.kind is Kind.IMAGE_ENCODER
    assert set(found.uses) == {Use(f"Wan2.1-I2V-14B-{size}", "image_encoder") for size in ("480P", "720P")}
    other = recognise(sparse(folder / "clip_vision_g.safetensors", image_encoder(1664, prefix=prefix)))
    assert (other.kind, other.uses) == (Kind.UNKNOWN, ())
    assert "width 1664" in other.note


@pytest.mark.parametrize("original", [True, False])
def test_autoencoders(folder: Path, original: bool) -> None:
    first = recognise(sparse(folder / "wan_2.1_vae.safetensors", vae(16, original=original)))
    assert {use.model for use in first.uses} == {
        "T2V-A14B", "I2V-A14B", "Wan2.1-T2V-14B", "Wan2.1-T2V-1.3B", "Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P",
    }  # fmt: skip
    second = recognise(sparse(folder / "x.safetensors", vae(48, original=original)))
    assert second.uses == (Use("TI2V-5B", "vae"), Use("FastWan2.2-TI2V-5B", "vae"))


def test_the_autoencoder_of_qwen_image_has_the_same_structure(folder: Path) -> None:
    named = recognise(sparse(folder / "qwen_image_vae.safetensors", vae(16)))
    assert ([it.name for it in named.identities], named.uses) == (["Qwen-Image VAE"], ())
    assert recognise(sparse(folder / "vae.safetensors", vae(16))).ambiguous
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKLWan"}')
    assert not recognise(folder / "vae.safetensors").ambiguous


def test_half_an_autoencoder_is_none(folder: Path) -> None:
    shapes = vae(16)
    shapes["decoder.middle.rest"] = (1000,)
    assert recognise(sparse(folder / "wan_vae.safetensors", shapes)).kind is Kind.UNKNOWN


def test_loras_are_no_models() -> None:
    found = recognise(next((EMBEDDED_MODELS / "loras").glob("*.safetensors")))
    assert (found.kind, found.uses) == (Kind.LORA, ())
    assert "tiny-t2v-a14b" in found.identities[0].name


def test_shards_are_one_thing(folder: Path) -> None:
    shapes = a14b(36, original=False)
    weight_map: dict[str, str] = {}
    for number in range(3):
        shard = f"diffusion_pytorch_model-{number + 1:05}-of-00003.safetensors"
        part = dict(list(shapes.items())[number::3])
        sparse(folder / "high_noise_model" / shard, part)
        weight_map |= dict.fromkeys(part, shard)
    index = folder / "high_noise_model" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = recognise(index)
    assert found.uses == (Use("I2V-A14B", "transformer"),)
    assert len(found.files) == 4
    (folder / "high_noise_model" / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    assert "00002" in recognise(index).note


@pytest.mark.parametrize("listed", ["../outside.safetensors", "/etc/passwd", "x.bin", ""])
def test_an_index_leads_nowhere_else(folder: Path, listed: str) -> None:
    index = folder / "x.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": listed}}))
    assert recognise(index).kind is Kind.REFUSED


def test_pickles_pointers_and_pages_are_refused_by_content(folder: Path) -> None:
    disguised = folder / "model.safetensors"
    disguised.write_bytes(pickle.dumps({"a": 1}))
    assert "pickle" in recognise(disguised).note
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    assert "pickle" in recognise(folder / "model.pth").note
    pointer = folder / "pointer.safetensors"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 28577057680\n")
    assert "git lfs pull" in recognise(pointer).note
    (folder / "page.safetensors").write_text("<!doctype html><title>Sign in</title>")
    assert "web page" in recognise(folder / "page.safetensors").note
    for name in ("model.safetensors", "model.pth"):
        assert recognise(folder / name).kind is Kind.UNSUPPORTED
    for name in ("pointer.safetensors", "page.safetensors", "absent.safetensors"):
        assert recognise(folder / name).kind is Kind.REFUSED


def test_cut_off_files_are_recognised(folder: Path) -> None:
    path = sparse(folder / "wan2.2_t2v_high_noise.safetensors", a14b())
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 7)
    assert "7 bytes are missing" in recognise(path).note
    path = sparse_gguf(folder / "a.gguf", a14b(), Q4_K)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 4096)
    assert "cut off" in recognise(path).note
    with path.open("rb+") as file:
        file.truncate(1000)
    assert "cut off" in recognise(path).note


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF",
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 8, 2**60),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**60),
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 77),
        b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"a", 1, 2**63, 0, 0),
        b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"\xff", 1, 1, 0, 0),
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"a", 2**31),
    ],
)
def test_hostile_gguf_headers_are_refused_at_once(folder: Path, content: bytes) -> None:
    (folder / "x.gguf").write_bytes(content)
    assert recognise(folder / "x.gguf").kind is Kind.REFUSED


def test_weights_of_something_else_are_unknown(folder: Path) -> None:
    save_file({"layer.weight": np.zeros((4, 4), np.float32)}, folder / "x.safetensors")
    found = recognise(folder / "x.safetensors")
    assert (found.kind, found.identities) == (Kind.UNKNOWN, ())
    assert found.note
