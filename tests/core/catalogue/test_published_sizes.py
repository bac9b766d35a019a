"""The transformers in the table equal those that diffusers builds from the published sizes, parameter by parameter."""

from __future__ import annotations

from math import prod

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from backend.core.catalogue.architecture import architecture_of
from backend.core.catalogue.table import MODELS, ModelSpec

LARGE = [spec for spec in MODELS.values() if not spec.embedded]


@pytest.mark.parametrize("spec", LARGE, ids=lambda spec: spec.id)
def test_a_transformer_has_the_parameters_of_the_real_module(spec: ModelSpec) -> None:
    found = architecture_of(spec)
    shape = found.transformer
    with torch.device("meta"):
        real = WanTransformer3DModel(
            num_attention_heads=found.heads,
            attention_head_dim=found.head_dim,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            text_dim=shape.text_dim,
            freq_dim=shape.freq_dim,
            ffn_dim=shape.ffn_dim,
            num_layers=shape.layers,
            patch_size=shape.patch,
            image_dim=shape.image_dim,
            added_kv_proj_dim=shape.added_kv_dim,
        )
    assert {name: tuple(one.shape) for name, one in real.named_parameters()} == dict(shape.parameters())


@pytest.mark.parametrize("spec", LARGE, ids=lambda spec: spec.id)
def test_the_size_in_the_table_is_the_sum_of_the_components(spec: ModelSpec) -> None:
    found = architecture_of(spec)
    parameters = found.experts * found.expert_parameters + found.text.parameters + found.vae.parameters
    parameters += found.image_parameters
    assert spec.weights_gb == pytest.approx(2 * parameters / 1e9, rel=0.005)
    assert spec.experts == found.experts


def test_wan21_uses_the_autoencoder_of_a14b() -> None:
    with torch.device("meta"):
        real = AutoencoderKLWan()
    parameters = sum(prod(one.shape) for one in real.parameters())
    assert parameters == architecture_of(MODELS["Wan2.1-T2V-1.3B"]).vae.parameters
