"""The text encoder and the denoising experts: building, widening and compiling them.

Owns their configurations. Latents are always normalised here: zero mean and unit deviation per channel.
`flow.py` owns how they are trained.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from training.networks.autoencoder import CHANNELS

TEXT_WIDTH = 64


def build_text_encoder(words: int) -> Any:
    """Build an untrained text encoder for a vocabulary of `words` words."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=words,
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def build_expert(channels: int = CHANNELS, layers: int = 4, condition: int = 0) -> Any:
    """Build an untrained denoising transformer (2.3 M parameters) for latents of `channels` channels.

    `condition` additional channels are inputs only, like those of the image in I2V.
    """
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=channels + condition,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=512,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )


@torch.no_grad()
def widened(expert: Any, condition: int) -> Any:
    """Return a copy with `condition` more input channels, which it ignores at first."""
    wide = build_expert(expert.config.in_channels, expert.config.num_layers, condition)
    state = dict(expert.state_dict())
    weight = state["patch_embedding.weight"]
    state["patch_embedding.weight"] = torch.cat(
        [weight, weight.new_zeros(len(weight), condition, *weight.shape[2:])], 1
    )
    wide.load_state_dict(state)
    return wide


@torch.no_grad()
def ignore_channels(expert: Any, used: int) -> None:
    """Make an expert ignore all latent channels but the first `used`, and predict zero for the others.

    Weights that are zero and receive no gradient stay zero.
    """
    expert.patch_embedding.weight[:, used:] = 0.0
    # The outputs of a patch are ordered by latent, then by channel.
    rows = torch.arange(len(expert.proj_out.weight)) % expert.config.out_channels >= used
    expert.proj_out.weight[rows] = 0.0
    expert.proj_out.bias[rows] = 0.0


def make_fast(expert: Any) -> None:
    """Compile an expert in place for training, which saves more than half of the time on a CPU."""
    # The backward pass of PyTorch's fused CPU attention takes most of a bfloat16 step; for 180 tokens, plain
    # matrix products, which the compiler fuses, are several times faster.
    torch.backends.cuda.enable_flash_sdp(False)
    expert.compile()


class Denoiser(nn.Module):
    """A text encoder and one expert, trained together or with the text encoder frozen."""

    def __init__(self, text_encoder: Any, expert: Any) -> None:
        super().__init__()
        self.text_encoder, self.expert = text_encoder, expert

    def embed(self, tokens: Tensor, length: int) -> Tensor:
        """Embed tokens (batch, words) as (batch, length, width), zero at padding, as the pipeline does."""
        mask = (tokens != 0).long()
        hidden = self.text_encoder(tokens, attention_mask=mask).last_hidden_state * mask[..., None]
        padded: Tensor = nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
        return padded

    def forward(self, noisy: Tensor, times: Tensor, prompt: Tensor) -> Tensor:
        """Predict noise minus clean latents; `times` range from 0 to 1000."""
        velocity: Tensor = self.expert(noisy, times, prompt, return_dict=False)[0]
        return velocity
