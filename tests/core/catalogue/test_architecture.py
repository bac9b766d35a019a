"""The structures match the real modules, checked against the embedded files and known counts."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from backend.core.catalogue.architecture import ARCHITECTURES, TextEncoderShape, VaeShape
from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import WanShape
from backend.models.folder.manager import EMBEDDED_MODELS

TINY = [name for name, spec in MODELS.items() if spec.embedded]


def _config(model: str, part: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((EMBEDDED_MODELS / model / part / "config.json").read_text())
    return values


def _stored(folder: Path) -> int:
    """Count the numbers in a folder's safetensors files, from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def test_every_model_has_a_structure() -> None:
    assert set(ARCHITECTURES) == set(MODELS)
    for name, spec in MODELS.items():
        assert ARCHITECTURES[name].experts == spec.experts


@pytest.mark.parametrize("model", TINY)
def test_the_tiny_models_match_their_files(model: str) -> None:
    found = ARCHITECTURES[model]
    config = _config(model, "transformer")
    assert found.transformer == WanShape.from_config(config)
    assert found.heads == config["num_attention_heads"]
    vae = _config(model, "vae")
    assert found.vae == VaeShape(
        vae["base_dim"],
        vae["decoder_base_dim"] or vae["base_dim"],
        vae["z_dim"],
        vae["scale_factor_spatial"],
        vae["patch_size"] or 1,
        vae["num_res_blocks"],
        vae["is_residual"],
    )
    text = _config(model, "text_encoder")
    sizes = (text[key] for key in ("num_layers", "d_model", "d_ff", "num_heads", "d_kv", "vocab_size"))
    assert found.text == TextEncoderShape(*sizes, text["relative_attention_num_buckets"])
    index = json.loads((EMBEDDED_MODELS / model / "model_index.json").read_text())
    assert found.per_token_time == bool(index.get("expand_timesteps"))


@pytest.mark.parametrize("model", TINY)
def test_the_tiny_family_has_exactly_the_parameters_in_its_files(model: str) -> None:
    found, folder = ARCHITECTURES[model], EMBEDDED_MODELS / model
    assert found.expert_parameters == _stored(folder / "transformer")
    assert found.vae.parameters == _stored(folder / "vae")
    assert found.text.parameters == _stored(folder / "text_encoder")


def test_the_large_models_have_the_published_parameter_counts() -> None:
    a14b, five = ARCHITECTURES["T2V-A14B"], ARCHITECTURES["TI2V-5B"]
    billions = {
        "expert": (a14b.expert_parameters, 14.29),
        "5B": (five.expert_parameters, 5.00),
        "text": (a14b.text.parameters, 5.68),
    }
    for name, (counted, known) in billions.items():
        assert round(counted / 1e9, 2) == known, name
    assert round(a14b.vae.parameters / 1e9, 3) == 0.127
    assert round(five.vae.parameters / 1e9, 3) == 0.705
    assert round(five.vae.decoder_parameters / 1e9, 3) == 0.555


def test_token_counts_at_native_sizes() -> None:
    assert ARCHITECTURES["T2V-A14B"].tokens(832, 480, 81) == 32_760
    assert ARCHITECTURES["I2V-A14B"].tokens(1280, 720, 81) == 75_600
    assert ARCHITECTURES["TI2V-5B"].tokens(1280, 704, 121) == 27_280
