"""Determines which kind of model a folder in diffusers' layout holds, and whether it fits a spec.

Reads configuration files and weight headers, so that a wrong kind is rejected at registration, not by a task hours
later. Reads no tensors; knows nothing about entries or where folders belong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.catalogue.architecture import architecture_of
from backend.core.catalogue.spec import DMD_PIPELINE, PIPELINES
from backend.core.catalogue.table import BUILT_IN, Mode, ModelSpec
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.models import ModelUnsupported
from backend.core.errors.requests import ModelMismatch
from backend.core.files import read_json
from backend.models.folder.condition import INDEX_FILE, fault_of

_BOUNDARY_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class FolderKind:
    """The properties that decide whether a folder can run as a model."""

    pipeline: str  #: class named in its index
    experts: int
    boundary_ratio: float | None
    expands_time: bool  #: whether every token has its own timestep (TI2V)
    transformer: WanShape
    latent_channels: int  #: of its autoencoder
    image_encoder: bool  #: whether it has one

    @classmethod
    def of(cls, folder: Path) -> FolderKind:
        """Read it from a folder.

        Raises:
            ModelMismatch: it is not in diffusers' layout, lacks files, or its parts contradict each other.
            ModelUnsupported: its weights are in a form that is not supported.
        """
        if not (folder / INDEX_FILE).is_file():
            raise ModelMismatch(
                f"There is no {INDEX_FILE} in {folder.name}: it is not a model folder in diffusers' layout",
                suggestions=("Give the folder that contains model_index.json, transformer, vae and text_encoder.",),
            )
        fault = fault_of(folder) or fault_of(folder, contents=True)
        if fault is not None and not fault.supported:
            raise ModelUnsupported(f"{folder.name} is not supported: {fault.reason}")
        if fault is not None:
            raise ModelMismatch(
                f"The folder is incomplete or damaged: {fault.reason}",
                suggestions=("Complete or replace its files first; nothing was changed.",),
            )
        index = _json(folder / INDEX_FILE)
        parts = [part for part in ("transformer", "transformer_2") if _has(index, part)]
        shapes = {part: _transformer(folder / part) for part in parts}
        if len(set(shapes.values())) != 1:
            raise ModelMismatch("Its transformers are not of one kind" if shapes else "It has no transformer")
        return cls(
            pipeline=str(index.get("_class_name")),
            experts=len(parts),
            boundary_ratio=index.get("boundary_ratio"),
            expands_time=bool(index.get("expand_timesteps", False)),
            transformer=next(iter(shapes.values())),
            latent_channels=_json(folder / "vae" / "config.json").get("z_dim", 16),
            image_encoder=_has(index, "image_encoder"),
        )

    def why_not(self, spec: ModelSpec) -> str | None:
        """Describe the first difference from the model; None if the folder fits."""
        wanted = architecture_of(spec)
        shape, expected = self.transformer, wanted.transformer
        boundary, at = self.boundary_ratio, spec.boundary_ratio
        if at is not None and isinstance(boundary, float) and abs(boundary - at) < _BOUNDARY_TOLERANCE:
            boundary = at
        compared = (
            ("pipeline", self.pipeline, DMD_PIPELINE if spec.renoise_at else PIPELINES[spec.mode]),
            ("number of transformers", self.experts, spec.experts),
            ("input channels", shape.in_channels, expected.in_channels),
            ("output channels", shape.out_channels, expected.out_channels),
            ("latent channels of the autoencoder", self.latent_channels, wanted.vae.channels),
            ("width", shape.dim, expected.dim),
            ("blocks", shape.layers, expected.layers),
            ("image encoder's width", shape.image_dim, expected.image_dim),
            ("image encoder", self.image_encoder, spec.image_tokens),
            ("boundary_ratio", boundary, at),
            ("expand_timesteps", self.expands_time, spec.mode is Mode.TI2V),
            ("other sizes of the transformer", shape, expected),
        )
        return next((f"{name} {has}, not {wants}" for name, has, wants in compared if has != wants), None)


def check_folder(folder: Path, spec: ModelSpec) -> None:
    """Verify that a folder holds a model with the structure of the spec.

    Raises:
        ModelMismatch: it does not; the message names the detected and the expected kind.
    """
    kind = FolderKind.of(folder)
    reason = kind.why_not(spec)
    if reason is None:
        return
    like = [one.id for one in BUILT_IN.specs if kind.why_not(one) is None]
    found = f"It has the structure of {' and '.join(like)}" if like else "Its structure matches no known model"
    raise ModelMismatch(
        f"{found}, not like {spec.structure} ({reason})",
        suggestions=tuple(f"Add it with `--base {name}`." for name in like) or ModelMismatch.suggestions,
        details={"is": like, "expected": spec.structure, "reason": reason},
    )


def _transformer(folder: Path) -> WanShape:
    """Read a transformer's structure from its configuration."""
    try:
        return WanShape.from_config(_json(folder / "config.json"))
    except (KeyError, TypeError, ValueError):
        raise ModelMismatch(f"{folder.name}/config.json is not that of a Wan transformer") from None


def _has(index: dict[str, Any], component: str) -> bool:
    """Whether an index lists a component: as library and class, both null where the model has none."""
    entry = index.get(component)
    return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except OSError:
        raise ModelMismatch(f"{path.parent.name}/{path.name} cannot be read") from None
    except ValueError as error:
        raise ModelMismatch(f"{path.parent.name}/{path.name} {error}") from None
    if not isinstance(value, dict):
        raise ModelMismatch(f"{path.parent.name}/{path.name} is not a JSON object")
    return value
