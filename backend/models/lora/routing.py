"""Assigns a LoRA's files to a model's experts, and checks that they fit.

Decided at submission and stored in the request, so the worker has nothing to guess.
"""

from __future__ import annotations

from typing import Protocol

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.table import ModelSpec
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.requests import InvalidRequest, LoraIncompatible
from backend.core.lora.keys import BOTH
from backend.core.lora.match import Match, match_tensors, read_lora
from backend.core.requests.forms import OnLoraFailure
from backend.models.lora.files import LoraFile


class Routable(Protocol):
    """The part of `models.lora.catalogue.Lora` that routing needs."""

    @property
    def id(self) -> str:
        """Its id in the list."""

    @property
    def files(self) -> tuple[LoraFile, ...]:
        """One file, or the two of a pair, the one for the high-noise expert first."""

    @property
    def is_pair(self) -> bool:
        """Whether it has a file for each expert."""


def route(lora: Routable, spec: ModelSpec, expert: str | None) -> tuple[list[tuple[LoraFile, str]], tuple[str, ...]]:
    """Decide which file goes to which expert."""
    if expert not in (None, HIGH, LOW, BOTH):
        raise InvalidRequest("expert must be high, low or both", details={"field": "expert"})
    if spec.experts == 1:
        if expert == LOW:
            raise InvalidRequest(f"{spec.id} has one expert", details={"field": "expert"})
        if lora.is_pair:
            raise LoraIncompatible(f"The LoRA {lora.id} is a pair for two experts; {spec.id} has one")
        return [(lora.files[0], BOTH)], ()
    if lora.is_pair:
        halves = dict(zip((HIGH, LOW), lora.files, strict=True))
        if expert in (HIGH, LOW):
            chosen = halves[str(expert)]
            return [(chosen, str(expert))], (f"of the LoRA {lora.id} only {chosen.name} is used, as asked",)
        high, low = halves[HIGH].name, halves[LOW].name
        said = f"LoRA {lora.id}: {high} goes to the high-noise expert, {low} to the low-noise one"
        return [(halves[HIGH], HIGH), (halves[LOW], LOW)], (said,)
    file = lora.files[0]
    if expert is not None:
        contradicted = file.expert is not None and BOTH not in (file.expert, expert) and file.expert != expert
        said = (
            f"LoRA {lora.id} goes to the {expert}-noise expert, as asked, although its {file.decided_by} says otherwise"
        )
        return [(file, expert)], (said,) if contradicted else ()
    if file.expert in (HIGH, LOW):
        return [(file, str(file.expert))], (
            f"LoRA {lora.id} goes to the {file.expert}-noise expert, by its {file.decided_by}",
        )
    if file.expert == BOTH:
        return [(file, BOTH)], ()
    return [(file, BOTH)], (f"nothing says which expert LoRA {lora.id} is for, so it goes to both; `expert` sets it",)


def check_fit(
    lora_id: str, file: LoraFile, place: str, spec: ModelSpec, shape: WanShape, on_failure: OnLoraFailure
) -> tuple[str, ...]:
    """Match a file to a model's structure; return a sentence about what is left out.

    Raises:
        LoraInvalid: the file cannot be read any more.
        LoraIncompatible: it was made for another model, or (with FAIL) fits only in part.
    """
    header = read_lora(file.path)
    match = match_tensors(header.tensors, header.metadata, shape)
    made_for = " or ".join(file.bases)
    if match.other_model or not match.matched:
        raise LoraIncompatible(
            f"The LoRA {lora_id} was made for {made_for}; {spec.id} has another structure",
            details={"lora": lora_id, "model": spec.id, "made_for": list(file.bases)},
        )
    if not any(change.concerns(expert) for change in match.changes for expert in _experts(spec, place)):
        where = spec.id if place == BOTH else f"the {place}-noise expert of {spec.id}"
        raise LoraIncompatible(f"No tensor of {file.name} is for {where}")
    obstacles = _obstacles(match, spec)
    if obstacles:
        said = (
            f"{len(obstacles)} of {len(header.tensors)} tensors of the LoRA {lora_id} have no place in {spec.id} "
            f"(the first is {obstacles[0]})"
        )
        if on_failure is OnLoraFailure.FAIL:
            raise LoraIncompatible(said)
        return (f"{said}: it fits only in part and will be left out",)
    if match.left_out:
        name, misfit = match.left_out[0]
        return (
            f"{len(match.left_out)} of {len(header.tensors)} tensors of {file.name} are not for {spec.id} "
            f"(the first is {name[:120]}: {misfit}); the rest of the LoRA {lora_id} is applied",
        )
    return ()


def _experts(spec: ModelSpec, place: str) -> tuple[str, ...]:
    if spec.experts == 1:
        return (HIGH,)
    return (HIGH, LOW) if place == BOTH else (place,)


def _obstacles(match: Match, spec: ModelSpec) -> list[str]:
    """Return the tensors without which the rest is not applied, including those for an expert that the model lacks."""
    experts = _experts(spec, BOTH)
    homeless = [change for change in match.changes if not any(change.concerns(expert) for expert in experts)]
    named = [f"{name[:120]}: {misfit}" for name, misfit in match.obstacles]
    return named + [f"{key[:120]}: the model has one expert" for change in homeless for key in change.keys]
