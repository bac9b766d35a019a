"""Matches a user's files to the components of a model, and finds the missing ones in other installed models.

A file of the wrong kind is rejected, naming its actual kind. If the tensors are ambiguous, the user's choice decides,
with a note. Reads headers only and creates no folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.core.catalogue.architecture import architecture_of
from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.errors.base import WanError
from backend.core.errors.models import ModelUnsupported
from backend.core.errors.requests import ModelMismatch
from backend.models.adoption.assembly import PartFile, components_of, part_files
from backend.models.adoption.recognition import recognise
from backend.models.adoption.structure import Kind, Recognised, Use
from backend.models.folder.manager import ModelManager

HIGH_PART, LOW_PART = "transformer", "transformer_2"
_ROLES: Final = {
    HIGH_PART: "the expert for high noise",
    LOW_PART: "the expert for low noise",
    "vae": "the autoencoder",
    "text_encoder": "the text encoder",
    "image_encoder": "the image encoder",
    "tokenizer": "the tokenizer",
}


@dataclass(frozen=True, slots=True)
class Placed:
    """Files with their names in the model's folder."""

    files: tuple[PartFile, ...]
    components: frozenset[str]
    notes: tuple[str, ...]  #: sentences about ambiguous files and parts taken from other models


def place_files(spec: ModelSpec, named: Mapping[str, Path], others: Iterable[Path] = ()) -> Placed:
    """Assign every file to a component: `named` files by their key, the others by their content.

    Raises:
        ModelMismatch: a file does not fit its component, or two files claim the same one.
        ModelUnsupported: a file is in a form that is not supported.
    """
    placed: dict[str, Recognised] = {}
    notes: list[str] = []
    for component, path in [*named.items(), *((None, path) for path in others)]:
        found = recognise(path)
        place = component or _place_of(spec, found)
        chosen = found.choose(Use(spec.structure, place))
        if chosen is None:
            raise _mismatch(spec, found, place)
        if place in placed:
            raise ModelMismatch(f"{path.name} and {placed[place].path.name} are both given as {_ROLES[place]}")
        placed[place] = chosen
        if found.ambiguous:
            doubts = " or ".join(one.name for one in found.identities if one != chosen.identities[0])
            notes.append(
                f"{path.name} is used as {chosen.identities[0].name}, as you chose; its tensors also fit {doubts}"
            )
        elif found.note:
            notes.append(f"{path.name}: {found.note}")
    files = tuple(file for component, found in placed.items() for file in part_files(component, found))
    return Placed(files, frozenset(placed), tuple(notes))


def with_the_rest(spec: ModelSpec, given: Placed, models: ModelManager) -> Placed:
    """Fill missing components from installed models with the same structure, the base first."""
    base = models_in_force().get(spec.structure)
    files, notes = list(given.files), list(given.notes)
    components = set(given.components)
    for donor in (base, *models_in_force().specs):
        lacking = [part for part in components_of(spec) if part not in components and _has(donor, part, spec)]
        if donor is None or not lacking or not models.state(donor).available:
            continue
        folder = models.folder(donor)
        for part in lacking:
            files += [PartFile(path, f"{part}/{path.name}") for path in sorted((folder / part).iterdir())]
        components.update(lacking)
        notes.append(f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} taken from {donor.id}")
    return Placed(tuple(files), frozenset(components), tuple(notes))


def _has(donor: ModelSpec | None, part: str, spec: ModelSpec) -> bool:
    """Whether a model's part can serve another: experts only from its base, other parts by equal structure."""
    if donor is None or donor.id == spec.id:
        return False
    if part in (HIGH_PART, LOW_PART):
        return donor.id == spec.structure
    theirs, ours = architecture_of(donor), architecture_of(spec)
    if part == "image_encoder":
        return theirs.image == ours.image
    return theirs.vae == ours.vae if part == "vae" else theirs.text == ours.text


def _place_of(spec: ModelSpec, found: Recognised) -> str:
    uses = {use.component for one in found.identities for use in one.uses if use.model == spec.structure}
    if len(uses) > 1:
        raise ModelMismatch(
            f"{found.path.name} can be either expert of {spec.structure}",
            suggestions=("Name its expert with `--high` or `--low`.",),
        )
    if not uses:
        raise _mismatch(spec, found, None)
    return next(iter(uses))


def _mismatch(spec: ModelSpec, found: Recognised, component: str | None) -> WanError:
    """Build the error that names the detected and the expected kind."""
    name = found.path.name
    names = " or ".join(one.name for one in found.identities)
    if found.kind is Kind.UNSUPPORTED:
        return ModelUnsupported(f"{name} is not supported. {found.note}")
    if found.kind is Kind.REFUSED:
        return ModelMismatch(
            f"{name} cannot be used. {found.note}", suggestions=("Use a safetensors or GGUF version of the file.",)
        )
    if component is None:
        expected = f"a part of {spec.structure}"
    elif spec.experts == 1 and component == HIGH_PART:
        expected = f"the transformer of {spec.structure}"
    else:
        expected = f"{_ROLES[component]} of {spec.structure}"
    return ModelMismatch(
        f"{name} is {names}, and {expected} was expected" if names else f"{name} is not {expected}. {found.note}",
        details={"is": [one.name for one in found.identities], "kind": str(found.kind), "expected": expected},
    )
