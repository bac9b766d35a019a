"""The text encoder and the two denoising experts: how they are built, and the loss they learn by.

Owns both configurations, the flow-matching loss, and which noise levels each expert answers for.
Latents here are always normalised: zero mean and unit deviation per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from training.autoencoder import CHANNELS
from training.latents import EncodedClips
from training.world import FILLERS, Scene

#: Time, as a share of 1000, from which the high-noise expert answers; 0.875 as in Wan 2.2 T2V.
BOUNDARY = 0.875
#: The scheduler's flow shift; training times are drawn with the same one.
FLOW_SHIFT = 3.0
TRAINING_TIMES = 1000
#: Share of empty captions, which classifier-free guidance needs.
EMPTY_SHARE = 0.1
#: Share of those that hold only unknown words instead, as a negative prompt in another language would.
UNKNOWN_SHARE = 0.2
#: Length prompts are padded to, and how often: the pipeline attends to padding, so its length must vary.
#: 64 is what the product asks for, 512 is what the stock pipeline pads to unless told otherwise.
PAD_LENGTHS = {64: 0.9, 512: 0.1}
TEXT_WIDTH = 64


def build_text_encoder(words: int) -> Any:
    """Make a fresh text encoder for a vocabulary of that many words."""
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


def build_expert() -> Any:
    """Make a fresh denoising transformer (2.3 M parameters)."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=512,
        num_layers=4,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )


def make_fast(expert: Any) -> None:
    """Compile an expert in place for training; saves more than half of the time on a CPU."""
    # The fused attention of PyTorch for CPUs takes most of a bfloat16 step in its backward pass; for 180
    # tokens plain matrix products, which the compiler fuses, are several times faster.
    torch.backends.cuda.enable_flash_sdp(False)
    expert.compile()


class Denoiser(nn.Module):
    """A text encoder and one expert, trained together or with the text encoder frozen."""

    def __init__(self, text_encoder: Any, expert: Any) -> None:
        super().__init__()
        self.text_encoder, self.expert = text_encoder, expert

    def embed(self, tokens: Tensor, length: int) -> Tensor:
        """Turn tokens (batch, words) into (batch, length, width), zero at padding, as the pipeline does."""
        mask = (tokens != 0).long()
        hidden = self.text_encoder(tokens, attention_mask=mask).last_hidden_state * mask[..., None]
        padded: Tensor = nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
        return padded

    def forward(self, noisy: Tensor, times: Tensor, prompt: Tensor) -> Tensor:
        """Predict noise minus clean latents; `times` run from 0 to 1000."""
        velocity: Tensor = self.expert(noisy, times, prompt, return_dict=False)[0]
        return velocity


@dataclass(frozen=True)
class NoiseLevels:
    """The noise levels (0 clean, 1 pure noise) that one network answers for, and what it sees most."""

    low: float = 0.0
    high: float = 1.0
    #: Share of the clips that is drawn from those that spin, besides those that come by chance.
    spinning: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Draw levels: logit-normal times, shifted as the scheduler shifts them, within the range."""
        drawn = np.empty(0)
        while len(drawn) < count:
            # Mostly logit-normal; a share of even draws keeps the first and last steps of a sampler in view.
            even = rng.random(4 * count) < 0.2
            times = 1 / (1 + np.exp(-rng.normal(size=4 * count)))
            times = np.where(even, rng.random(4 * count), times)
            levels = FLOW_SHIFT * times / (1 + (FLOW_SHIFT - 1) * times)
            drawn = np.concatenate([drawn, levels[(levels >= self.low) & (levels <= self.high)]])
        return torch.from_numpy(drawn[:count]).float()


class FlowLoss:
    """Flow matching on encoded clips: predict the straight way from clean latents to noise."""

    def __init__(
        self, denoiser: Denoiser, clips: EncodedClips, tokenizer: Any, levels: NoiseLevels, batch: int
    ) -> None:
        self._denoiser, self._clips, self._tokenizer = denoiser, clips, tokenizer
        self._levels, self._batch = levels, batch
        self._spinning = np.array([i for i, scene in enumerate(clips.scenes) if scene.motion == "spinning"])

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Give the loss of one step."""
        device = next(self._denoiser.parameters()).device
        chosen = rng.integers(len(self._clips.scenes), size=self._batch)
        favoured = rng.random(self._batch) < self._levels.spinning
        chosen = np.where(favoured, rng.choice(self._spinning, size=self._batch), chosen)
        captions = [self._caption(self._clips.scenes[index], rng) for index in chosen]
        tokens = self._tokenizer(captions, padding=True, return_tensors="pt").input_ids.to(device)
        clean = self._clips.latents[torch.from_numpy(chosen)].to(device).float()
        noise = torch.randn(clean.shape).to(device)
        level = self._levels.draw(self._batch, rng).to(device)
        share = level[:, None, None, None, None]
        length = int(rng.choice(list(PAD_LENGTHS), p=list(PAD_LENGTHS.values())))
        with torch.autocast(device.type, torch.bfloat16):
            prompt = self._denoiser.embed(tokens, length)
            noisy = (1 - share) * clean + share * noise
            predicted = self._denoiser(noisy, level * TRAINING_TIMES, prompt)
        return {"flow": (predicted.float() - (noise - clean)).square().mean()}

    def _caption(self, scene: Scene, rng: np.random.Generator) -> str:
        if rng.random() >= EMPTY_SHARE:
            return scene.phrase(rng)
        if rng.random() >= UNKNOWN_SHARE:
            return ""
        return " ".join(FILLERS[:1] * int(rng.integers(1, 20)))
