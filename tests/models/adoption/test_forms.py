"""Forms of weights: the unsupported ones are named as such, and the reshaped ones are taken like the original."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

import gguf
import pytest

from backend.core.formats.tensors import stored_bytes
from backend.models.adoption.recognition import recognise
from backend.models.adoption.structure import Kind, Use
from tests.support.weight_files import a14b, image_encoder, sparse, sparse_gguf, text_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name, and the one above, say nothing."""
    folder = tmp_path / "models" / "diffusion_models"
    folder.mkdir(parents=True)
    return folder


def _stored(path: Path, forms: dict[str, tuple[str, tuple[int, ...]]], shapes: dict[str, tuple[int, ...]]) -> Path:
    """Write a file of a model with some tensors in another form: by name the type and the stored shape."""
    header: dict[str, object] = {}
    at = 0
    for name, (dtype, shape) in ({name: ("BF16", shape) for name, shape in shapes.items()} | forms).items():
        size = stored_bytes(dtype, prod(shape)) or 0
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


_Q = "blocks.3.cross_attn.q"


@pytest.mark.parametrize(
    ("forms", "sentence"),
    [
        ({f"{_Q}.weight": ("I8", (5120, 5120)), f"{_Q}.weight_scale": ("F32", ())}, "int8 (I8)"),
        ({f"{_Q}.weight": ("U8", (5120, 2560)), f"{_Q}.weight_scale": ("F8_E4M3", (5120, 320))}, "uint8 (U8)"),
        (
            {
                f"{_Q}.weight": ("U8", (5120, 2560)),
                f"{_Q}.weight_scale": ("F8_E4M3", (5120, 320)),
                f"{_Q}.weight_scale_2": ("F32", ()),
            },
            "NVFP4",
        ),
        ({f"{_Q}.weight": ("F8_E4M3", (5120, 5120)), f"{_Q}.weight_scale": ("U8", (5120, 160))}, "MXFP8"),
        ({f"{_Q}.weight": ("F8_E4M3", (5120, 5120)), f"{_Q}.weight_scale": ("F8_E8M0", (5120, 160))}, "MXFP8"),
        ({f"{_Q}.weight": ("F8_E4M3", (5120, 5120)), f"{_Q}.weight_scale": ("F32", (40, 40))}, "blocks of a matrix"),
        ({f"{_Q}.weight": ("F4", (5120, 5120))}, "fp4 (F4)"),
        ({f"{_Q}.weight": ("I8", (5120, 5120)), f"{_Q}.SCB": ("F32", (5120,))}, "bitsandbytes"),
        ({f"{_Q}.qweight": ("I32", (5120, 640)), f"{_Q}.wscales": ("BF16", (80, 5120))}, "int4"),
        ({f"{_Q}.weight": ("X9", (0,))}, "type 'X9'"),
        ({"vae.decoder.conv1.weight": ("BF16", (4,))}, "A bundle"),
    ],
)
def test_a_form_that_is_not_supported_is_named(
    folder: Path, forms: dict[str, tuple[str, tuple[int, ...]]], sentence: str
) -> None:
    found = recognise(_stored(folder / "wan2.2_t2v_high_noise.safetensors", forms, a14b()))
    assert (found.kind, found.uses) == (Kind.UNSUPPORTED, ())
    assert sentence in found.note
    assert "support" in found.note


@pytest.mark.parametrize("kind", ["IQ2_XS", "TQ1_0", "IQ3_S"])
def test_gguf_types_that_are_not_read_are_named(folder: Path, kind: str) -> None:
    for name, shapes in (("wan2.2_t2v_low_noise.gguf", a14b()), ("umt5.gguf", text_encoder("gguf"))):
        found = recognise(sparse_gguf(folder / name, shapes, gguf.GGMLQuantizationType[kind]))
        assert (found.kind, f"stored as {kind}, which is not supported" in found.note) == (Kind.UNSUPPORTED, True)


def test_integers_that_are_computed_instead_of_loaded_are_no_fault(folder: Path) -> None:
    counters = {"vision_model.embeddings.position_ids": ("I64", (1, 257))}
    assert recognise(_stored(folder / "clip.safetensors", counters, image_encoder())).uses


@pytest.mark.parametrize(
    "kernel",
    [(5120, 64), (5120, 16, 2, 2), (5120 * 16, 1, 2, 2), (5120 * 16, 2, 2), (5120 * 16, 4), (5120, 16, 1, 2, 2)],
)
@pytest.mark.parametrize("packed", [True, False])
def test_folded_kernels_and_lost_sides_are_taken(folder: Path, kernel: tuple[int, ...], packed: bool) -> None:
    shapes = {name: shape[1:] if name.endswith("modulation") else shape for name, shape in a14b().items()}
    shapes["patch_embedding.weight"] = kernel
    if packed and len(kernel) <= 4 and kernel[1:] != (4,):  # a row is at least one block
        path = sparse_gguf(folder / "wan2.2_t2v_high_noise.gguf", shapes, gguf.GGMLQuantizationType.Q8_0)
    else:
        path = sparse(folder / "wan2.2_t2v_high_noise.safetensors", shapes)
    assert recognise(path).uses == (Use("T2V-A14B", "transformer"),)


@pytest.mark.parametrize(
    ("name", "shape"), [("patch_embedding.weight", (5120, 65)), ("patch_embedding.weight", (64, 5120)),
                        ("head.modulation", (5120, 2)), ("blocks.0.ffn.0.weight", (5120, 13824))]
)  # fmt: skip
def test_other_orders_of_the_sides_are_not(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    found = recognise(sparse(folder / "wan2.2_t2v_high_noise.safetensors", a14b() | {name: shape}))
    assert (found.kind, found.uses) == (Kind.UNKNOWN, ())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "of version 9, which is not supported"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 0), "in big-endian byte order, which is not supported"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"a", 1, 1, 4444, 0),
            "GGUF type 4444, which is not supported",
        ),
    ],
)
def test_a_gguf_file_of_another_kind_is_not_damaged(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "x.gguf").write_bytes(content)
    found = recognise(folder / "x.gguf")
    assert (found.kind, sentence in found.note) == (Kind.UNSUPPORTED, True)
