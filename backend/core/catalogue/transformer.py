"""The structure of a Wan transformer, as names and shapes of its parameters, to match LoRAs against.

Pure arithmetic without files or torch, so the web process can judge a LoRA even for a model that is not
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class WanShape:
    """The sizes that determine every parameter of `diffusers.WanTransformer3DModel`."""

    dim: int  #: width of the tokens
    ffn_dim: int  #: width inside the feed-forward parts
    layers: int  #: number of blocks
    in_channels: int  #: channels of the latents and of the tensors concatenated to them
    out_channels: int
    text_dim: int  #: width of the text encoder's tokens
    freq_dim: int = 256  #: width of the sinusoidal time embedding
    patch: tuple[int, int, int] = (1, 2, 2)  #: frames, rows, columns of latents in one token
    image_dim: int | None = None  #: width of an image encoder's tokens; None without one
    added_kv_dim: int | None = None  #: width of the extra keys and values for image tokens
    image_positions: int | None = None  #: image tokens with learned positions (FLF2V); None without
    cross_attn_norm: bool = True  #: whether the norm before cross-attention has parameters

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WanShape:
        """Read the sizes from a transformer's configuration (`config.json` of its folder).

        Raises:
            KeyError, TypeError, ValueError: it is not the configuration of a Wan transformer.
        """
        frames, rows, columns = config["patch_size"]
        return cls(
            dim=int(config["num_attention_heads"]) * int(config["attention_head_dim"]),
            ffn_dim=int(config["ffn_dim"]),
            layers=int(config["num_layers"]),
            in_channels=int(config["in_channels"]),
            out_channels=int(config["out_channels"] or config["in_channels"]),
            text_dim=int(config["text_dim"]),
            freq_dim=int(config["freq_dim"]),
            patch=(int(frames), int(rows), int(columns)),
            image_dim=config.get("image_dim"),
            added_kv_dim=config.get("added_kv_proj_dim"),
            image_positions=config.get("pos_embed_seq_len"),
            cross_attn_norm=bool(config.get("cross_attn_norm", True)),
        )

    @property
    def reads_image(self) -> bool:
        """Whether an image is concatenated to the latents."""
        return self.in_channels > self.out_channels

    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every parameter by its name in diffusers."""
        return _parameters(self)

    def _all(self) -> dict[str, tuple[int, ...]]:
        dim = self.dim
        found: dict[str, tuple[int, ...]] = {
            "patch_embedding.weight": (dim, self.in_channels, *self.patch),
            "patch_embedding.bias": (dim,),
            "scale_shift_table": (1, 2, dim),
        }
        embedder = "condition_embedder"
        found |= _linear(f"{embedder}.time_embedder.linear_1", self.freq_dim, dim)
        found |= _linear(f"{embedder}.time_embedder.linear_2", dim, dim)
        found |= _linear(f"{embedder}.time_proj", dim, 6 * dim)
        found |= _linear(f"{embedder}.text_embedder.linear_1", self.text_dim, dim)
        found |= _linear(f"{embedder}.text_embedder.linear_2", dim, dim)
        if self.image_dim is not None:
            found |= _norm(f"{embedder}.image_embedder.norm1", self.image_dim)
            found |= _linear(f"{embedder}.image_embedder.ff.net.0.proj", self.image_dim, self.image_dim)
            found |= _linear(f"{embedder}.image_embedder.ff.net.2", self.image_dim, dim)
            found |= _norm(f"{embedder}.image_embedder.norm2", dim)
            if self.image_positions is not None:
                found[f"{embedder}.image_embedder.pos_embed"] = (1, self.image_positions, self.image_dim)
        for index in range(self.layers):
            found |= self._block(f"blocks.{index}")
        return found | _linear("proj_out", dim, self.out_channels * prod(self.patch))

    def _block(self, block: str) -> dict[str, tuple[int, ...]]:
        dim = self.dim
        found: dict[str, tuple[int, ...]] = {f"{block}.scale_shift_table": (1, 6, dim)}
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= _linear(f"{attention}.{part}", dim, dim)
            found |= {f"{attention}.norm_q.weight": (dim,), f"{attention}.norm_k.weight": (dim,)}
        if self.added_kv_dim is not None:
            for part in ("add_k_proj", "add_v_proj"):
                found |= _linear(f"{block}.attn2.{part}", self.added_kv_dim, dim)
            found[f"{block}.attn2.norm_added_k.weight"] = (dim,)
        if self.cross_attn_norm:
            found |= _norm(f"{block}.norm2", dim)
        found |= _linear(f"{block}.ffn.net.0.proj", dim, self.ffn_dim)
        return found | _linear(f"{block}.ffn.net.2", self.ffn_dim, dim)


@lru_cache(maxsize=16)
def _parameters(shape: WanShape) -> Mapping[str, tuple[int, ...]]:
    return MappingProxyType(shape._all())


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


#: Both I2V models of Wan2.1 14B, which differ in the sizes they were trained for.
_WAN21_I2V = WanShape(5120, 13824, 40, 36, 16, 4096, image_dim=1280, added_kv_dim=5120)

#: The published transformers, from the `config.json` of each; all read text of 4096 channels.
PUBLISHED: dict[str, WanShape] = {
    "T2V-A14B": WanShape(5120, 13824, 40, 16, 16, 4096),
    "I2V-A14B": WanShape(5120, 13824, 40, 36, 16, 4096),
    "TI2V-5B": WanShape(3072, 14336, 30, 48, 48, 4096),
    "FastWan2.2-TI2V-5B": WanShape(3072, 14336, 30, 48, 48, 4096),
    "Wan2.1-T2V-1.3B": WanShape(1536, 8960, 30, 16, 16, 4096),
    "Wan2.1-I2V-14B-480P": _WAN21_I2V,
    "Wan2.1-I2V-14B-720P": _WAN21_I2V,
    "Wan2.1-T2V-14B": WanShape(5120, 13824, 40, 16, 16, 4096),
}
