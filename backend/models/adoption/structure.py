"""Recognises weight files by tensor names and shapes, compared with `core/catalogue/architecture.py`.

Defines the vocabulary (kind, identity, use), and returns every identity that the structure allows: a model's two
experts share one structure, and so do some models of other makers. Does not choose among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count
from math import prod
from pathlib import Path
from typing import Final

from backend.core.catalogue.architecture import ARCHITECTURES, ImageEncoderShape, TextEncoderShape, VaeShape
from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import PUBLISHED, WanShape
from backend.core.formats.compatibility import Fault, same_shape, shapes_fault
from backend.core.formats.tensors import TensorInfo
from backend.core.formats.text_encoder_names import llama_text_name, wan_text_name
from backend.core.formats.weights import WeightHeader
from backend.core.lora.experts import UNKNOWN, base_name
from backend.core.lora.keys import parameter_name

Tensors = Mapping[str, TensorInfo]

FIRST_VAE, QWEN_VAE = "Wan2.1 VAE", "Qwen-Image VAE"
_VAE_NAMES: Final = {(16, 96): FIRST_VAE, (48, 256): "Wan2.2 VAE"}


class Kind(StrEnum):
    """What a file is."""

    TRANSFORMER = "transformer"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    IMAGE_ENCODER = "image_encoder"
    LORA = "lora"
    UNKNOWN = "unknown"  # weights of no known model
    UNSUPPORTED = "not supported"  # in a form that is not read here: int8, a bundle, a pickle
    REFUSED = "refused"  # damaged or incomplete: a pointer, a truncated file


class Naming(StrEnum):
    """The naming scheme of the tensors."""

    DIFFUSERS = "diffusers"  # for the text encoder: Hugging Face's
    ORIGINAL = "original"
    LLAMA = "llama.cpp"


@dataclass(frozen=True, slots=True)
class Use:
    """One component of one model that a file can be."""

    model: str  #: id in the model table
    component: str  #: folder in diffusers' layout


@dataclass(frozen=True, slots=True)
class Identity:
    """One possible identity of a file."""

    name: str
    uses: tuple[Use, ...] = ()  #: empty: no model here can use it


@dataclass(frozen=True, slots=True)
class Recognised:
    """What is known about a file."""

    path: Path
    kind: Kind
    size: int  #: bytes, of all shards
    identities: tuple[Identity, ...] = ()  #: more than one: ambiguous
    naming: Naming | None = None
    header: WeightHeader | None = None
    note: str = ""  #: why it is not used, what would settle it, or which part of it is not used, in one sentence

    @property
    def ambiguous(self) -> bool:
        """Whether the user has to choose among several identities."""
        return len(self.identities) > 1

    @property
    def uses(self) -> tuple[Use, ...]:
        """Its uses, if its identity is certain."""
        return self.identities[0].uses if len(self.identities) == 1 else ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or the index and its shards."""
        return (self.path,) if self.header is None else self.header.files

    @property
    def precision(self) -> tuple[str, ...]:
        """Its dtypes, most frequent first."""
        return () if self.header is None else self.header.precision

    def choose(self, use: Use) -> Recognised | None:
        """Return the same file with the ambiguity resolved in favour of `use`; None if it cannot be that."""
        fitting = [identity for identity in self.identities if use in identity.uses]
        if not fitting:
            return None
        return replace(self, identities=(fitting[0],), note="")


def by_structure(path: Path, header: WeightHeader) -> Recognised:
    """Return what a file can be, judged by its tensors alone; `UNKNOWN` with a reason if they match nothing known."""
    for judge in (_transformer, _vae, _text_encoder, _image_encoder, _lora):
        found = judge(path, header)
        if found is not None:
            return found
    return Recognised(path, Kind.UNKNOWN, header.size, header=header, note="Its tensors belong to no known model")


def _transformer(path: Path, header: WeightHeader) -> Recognised | None:
    parameters: dict[str, TensorInfo] = {}
    others: list[str] = []
    original = False
    for name, info in header.tensors.items():
        parameter = parameter_name(name)
        if parameter is None:
            others.append(name)
            continue
        parameters[parameter] = info
        original = original or not name.endswith(parameter)
    if "patch_embedding.weight" not in parameters or "proj_out.weight" not in parameters:
        return None
    naming = Naming.ORIGINAL if original else Naming.DIFFUSERS
    unknown = Recognised(path, Kind.UNKNOWN, header.size, (), naming, header)
    fault = header.fault()
    if fault is not None:
        return _faulty(unknown, "A Wan transformer", fault)
    if others:
        return _with_further_parts(unknown, others)
    shape = _wan_shape(parameters)
    if shape is None or len(shape.parameters()) != len(parameters):
        return replace(unknown, note="A Wan transformer that lacks parts, or has parts of other shapes")
    fault = shapes_fault(parameters, shape.parameters())
    if fault is not None:
        return _faulty(unknown, "A Wan transformer", fault)
    structures = {model: architecture.transformer for model, architecture in ARCHITECTURES.items()} | PUBLISHED
    models = [model for model, structure in structures.items() if structure == shape]
    if not models:
        return replace(
            unknown,
            note=f"A Wan transformer of {shape.layers} blocks of width {shape.dim}, which is no supported model",
        )
    identities = tuple(identity for model in models for identity in _identities(model))
    return Recognised(path, Kind.TRANSFORMER, header.size, identities, naming, header)


def _faulty(found: Recognised, what: str, fault: Fault) -> Recognised:
    """Return a file that is something known but cannot be used."""
    kind = found.kind if fault.supported else Kind.UNSUPPORTED
    return replace(found, kind=kind, note=f"{what}, but {fault.reason}")


#: Name prefixes of further models in one file, as checkpoints of other programs have them.
_BUNDLED: Final = (
    "first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "text_encoder.",
)  # fmt: skip


def _with_further_parts(found: Recognised, others: list[str]) -> Recognised:
    if any(name.startswith(_BUNDLED) for name in others):
        note = "A bundle of a Wan transformer and other parts in one file; only files of single parts are supported"
        return replace(found, kind=Kind.UNSUPPORTED, note=note)
    return replace(found, note=f"A relative of Wan with further parts ({sorted(others)[0]})")


#: Frames, rows and columns of latents in one token, in all models of this architecture.
_PATCH: Final = (1, 2, 2)


def _wan_shape(parameters: Tensors) -> WanShape | None:
    """Derive a transformer's structure from the shapes of some of its parameters."""
    embedder = "condition_embedder"
    blocks = {int(name.split(".")[1]) for name in parameters if name.startswith("blocks.")}
    try:
        # The kernel may be folded, so its sides are derived from its size.
        (dim,) = parameters["patch_embedding.bias"].shape
        inputs, rest = divmod(prod(parameters["patch_embedding.weight"].shape), dim * prod(_PATCH))
        if rest:
            return None
        image = parameters.get(f"{embedder}.image_embedder.norm1.weight")
        added = parameters.get("blocks.0.attn2.add_k_proj.weight")
        return WanShape(
            dim=dim,
            ffn_dim=parameters["blocks.0.ffn.net.0.proj.weight"].shape[0],
            layers=len(blocks),
            in_channels=inputs,
            out_channels=parameters["proj_out.weight"].shape[0] // prod(_PATCH),
            text_dim=parameters[f"{embedder}.text_embedder.linear_1.weight"].shape[1],
            freq_dim=parameters[f"{embedder}.time_embedder.linear_1.weight"].shape[1],
            patch=_PATCH,
            image_dim=None if image is None else image.shape[0],
            added_kv_dim=None if added is None else added.shape[1],
            cross_attn_norm="blocks.0.norm2.weight" in parameters,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return None


def _identities(model: str) -> Iterable[Identity]:
    spec = MODELS.get(model)
    if spec is None:
        yield Identity(model)
    elif spec.experts == 1:
        yield Identity(model, (Use(model, "transformer"),))
    else:
        yield Identity(f"{model} high noise", (Use(model, "transformer"),))
        yield Identity(f"{model} low noise", (Use(model, "transformer_2"),))


def _vae(path: Path, header: WeightHeader) -> Recognised | None:
    if "decoder.conv_in.weight" in header.tensors:
        naming, names = Naming.DIFFUSERS, ("decoder.conv_in.weight", "encoder.conv_in.weight")
    else:
        naming, names = Naming.ORIGINAL, ("decoder.conv1.weight", "encoder.conv1.weight")
    decoder, encoder = (header.tensors.get(name) for name in names)
    if decoder is None or encoder is None:
        return None
    unknown = Recognised(path, Kind.UNKNOWN, header.size, (), naming, header)
    fault = header.fault()
    if fault is not None:
        return _faulty(unknown, "An autoencoder", fault)
    numbers = sum(prod(info.shape) for info in header.tensors.values())
    # The first convolution of the decoder makes four times its base width; the encoder's sees 3 x patch^2 channels.
    fitting = {
        model: architecture.vae
        for model, architecture in ARCHITECTURES.items()
        if same_shape(decoder.shape, (4 * architecture.vae.decoder_width, architecture.vae.channels, 3, 3, 3))
        and same_shape(encoder.shape, (architecture.vae.encoder_width, 3 * architecture.vae.patch**2, 3, 3, 3))
        and numbers == architecture.vae.parameters
    }
    if not fitting:
        channels = f" for latents of {decoder.shape[1]} channels" if len(decoder.shape) == 5 else ""
        note = f"An autoencoder{channels} that no supported model uses, or a part of one"
        return Recognised(path, Kind.UNKNOWN, header.size, (), naming, header, note)
    name = _vae_name(next(iter(fitting.values())))
    own = Identity(name, tuple(Use(model, "vae") for model in fitting))
    identities = (own, Identity(QWEN_VAE)) if name == FIRST_VAE else (own,)
    return Recognised(path, Kind.VAE, header.size, identities, naming, header)


def _vae_name(vae: VaeShape) -> str:
    return _VAE_NAMES.get((vae.channels, vae.decoder_width), f"tiny VAE of {vae.channels} channels")


#: Parameter names of the text encoder, from transformers' names.
_TEXT_NAMES: Final[Mapping[Naming, Callable[[str], str]]] = {
    Naming.DIFFUSERS: str,
    Naming.ORIGINAL: wan_text_name,
    Naming.LLAMA: llama_text_name,
}
_TABLE_OF_WORDS: Final = "shared.weight"
_OWN_WORDS: Final = "The tokenizer inside it is not used: the model's own is"


def _text_encoder(path: Path, header: WeightHeader) -> Recognised | None:
    for naming, named in _TEXT_NAMES.items():
        table = header.tensors.get(named(_TABLE_OF_WORDS))
        if table is None or len(table.shape) != 2:
            continue
        layers = _text_layers(header.tensors, named)
        if not layers:
            continue
        models = {model: it.text for model, it in ARCHITECTURES.items() if _text_table(it.text) == table.shape}
        unknown = Recognised(path, Kind.UNKNOWN, header.size, (), naming, header)
        if not models:
            words = f"A T5 encoder of {layers} layers with {table.shape[0]} words that no supported model uses"
            return replace(unknown, note=f"{words}, or a part of one")
        name = "UMT5-XXL" if "T2V-A14B" in models else "tiny text encoder"
        # A vocabulary table belongs to one encoder: shared encoders are identical.
        fault = _text_fault(header, next(iter(models.values())), naming)
        if fault is not None:
            return _faulty(unknown, f"It would be {name}", fault)
        identity = Identity(name, tuple(Use(model, "text_encoder") for model in models))
        note = _OWN_WORDS if naming is Naming.LLAMA else ""
        return Recognised(path, Kind.TEXT_ENCODER, header.size, (identity,), naming, header, note)
    return None


def _text_layers(tensors: Tensors, named: Callable[[str], str]) -> int:
    """Count the consecutive layers of an encoder, starting at the first."""
    queries = "encoder.block.{}.layer.0.SelfAttention.q.weight"
    return next(index for index in count() if named(queries.format(index)) not in tensors)


def _text_table(text: TextEncoderShape) -> tuple[int, int]:
    return text.vocabulary, text.dim


def _text_fault(header: WeightHeader, text: TextEncoderShape, naming: Naming) -> Fault | None:
    """Describe the first unsupported, missing, misshapen or unexpected tensor; None if all fit."""
    expected = {_TEXT_NAMES[naming](name): shape for name, shape in text.shapes().items()}
    fault = header.fault(expected) or shapes_fault(header.tensors, expected)
    # Files with transformers' names may include the decoder, which is ignored.
    left = sorted(header.tensors.keys() - expected.keys()) if naming is not Naming.DIFFUSERS else []
    return fault or (Fault(f"{left[0][:120]} has no place in an encoder") if left else None)


#: Name prefixes of CLIP's image half: as written by transformers before version 5, and since.
_IMAGE_PREFIXES: Final = ("vision_model.", "")
#: Numbers of the patches, which are computed instead of loaded.
_IMAGE_COUNTERS: Final = "position_ids"


def _image_encoder(path: Path, header: WeightHeader) -> Recognised | None:
    for prefix in _IMAGE_PREFIXES:
        names = ("embeddings.patch_embedding.weight", "embeddings.position_embedding.weight")
        patches, places = (header.tensors.get(f"{prefix}{name}") for name in names)
        if patches is None or places is None or len(patches.shape) != 4 or len(places.shape) != 2:
            continue
        layers: dict[str, TensorInfo] = {}
        for name, info in header.tensors.items():
            if name.startswith(f"{prefix}encoder.layers.") and name.endswith(".mlp.fc1.weight"):
                layers[name] = info
        side = round((places.shape[0] - 1) ** 0.5) * patches.shape[2]
        inside = {info.shape[0] for info in layers.values()}
        shape = ImageEncoderShape(len(layers), patches.shape[0], max(inside, default=0), side, patches.shape[2])
        models = [model for model, it in ARCHITECTURES.items() if it.image == shape and len(inside) == 1]
        if not models:
            note = f"An image encoder of {len(layers)} layers of width {shape.dim} that no supported model uses"
            return Recognised(path, Kind.UNKNOWN, header.size, (), Naming.DIFFUSERS, header, note)
        fault = header.fault([name for name in header.tensors if not name.endswith(_IMAGE_COUNTERS)])
        if fault is not None:
            unknown = Recognised(path, Kind.UNKNOWN, header.size, (), Naming.DIFFUSERS, header)
            return _faulty(unknown, "It would be CLIP ViT-H/14", fault)
        identity = Identity("CLIP ViT-H/14", tuple(Use(model, "image_encoder") for model in models))
        return Recognised(path, Kind.IMAGE_ENCODER, header.size, (identity,), Naming.DIFFUSERS, header)
    return None


_TINY: Final = {name: it.transformer for name, it in ARCHITECTURES.items() if MODELS[name].embedded}


def _lora(path: Path, header: WeightHeader) -> Recognised | None:
    try:
        base = base_name(header.tensors, header.metadata, _TINY)
    except ValueError:
        return None
    if base == UNKNOWN:
        return None
    return Recognised(path, Kind.LORA, header.size, (Identity(f"LoRA for {base}"),), header=header)
