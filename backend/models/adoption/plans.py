"""Plans which local files become which model: one plan per model, shown before anything is done.

A file is used if it has a single identity or the user chose one. `assembly` carries out the plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.core.catalogue.table import MODELS, ModelSpec, find_model
from backend.core.errors.requests import InvalidRequest
from backend.models.adoption.assembly import PartFile, Parts, components_of, lacking, part_files
from backend.models.adoption.pairing import EXPERTS, Pairing, pair
from backend.models.adoption.structure import Recognised, Use
from backend.models.adoption.survey import Survey
from backend.models.folder.manager import ModelManager, Presence


@dataclass(frozen=True, slots=True)
class Plan:
    """The assembly plan of one model."""

    spec: ModelSpec
    presence: Presence
    parts: Parts
    lacking: tuple[str, ...]  #: components without any file
    rivals: Mapping[str, int]  #: by component: the number of files that fit, if more than one
    question: str = ""  #: what the user has to decide before its experts can be used, in one sentence

    @property
    def size_bytes(self) -> int:
        """Bytes that need not be downloaded."""
        return sum(part.source.stat().st_size for part in self.parts.files)

    @property
    def worthwhile(self) -> bool:
        """Whether it is adopted automatically: it is not installed, and all its transformers were found."""
        return self.presence is Presence.MISSING and bool(self.parts.files) and not set(EXPERTS) & set(self.lacking)


def parse_choices(texts: list[str]) -> dict[Use, Path]:
    """Parse the user's choices: `MODEL/COMPONENT=FILE`.

    Raises:
        InvalidRequest: a choice is malformed, or names a component that the model does not have.
        UnknownModel: no model has this name.
    """
    choices: dict[Use, Path] = {}
    for text in texts:
        place, _, file = text.partition("=")
        model, _, component = place.partition("/")
        spec = find_model(model)
        if not file or component not in components_of(spec) or component == "tokenizer":
            raise InvalidRequest(
                f"`{text}` does not assign a file to a component",
                suggestions=(f"Write it as {spec.id}/transformer=PATH; `--dry-run` lists the files.",),
            )
        use, path = Use(spec.id, component), Path(file).expanduser().absolute()
        if any(other.model == spec.id and path == taken for other, taken in choices.items()):
            raise InvalidRequest(f"One file cannot be two components of {spec.id}")
        choices[use] = path
    return choices


def plans(survey: Survey, manager: ModelManager, choices: Mapping[Use, Path]) -> list[Plan]:
    """Make the plan of every model that does not ship with the package.

    Raises:
        InvalidRequest: a chosen file was not found, or does not fit its component.
    """
    for use, path in choices.items():
        found = _chosen(survey, path)
        if found is None or found.choose(use) is None:
            what = "was not found in the folders" if found is None else "is of another kind"
            raise InvalidRequest(
                f"The file for {use.model}/{use.component} {what}",
                suggestions=("Add its folder with `--from`.", "`--dry-run` lists the files and their kinds."),
            )
    return [_plan(spec, survey, manager.state(spec).presence, choices) for spec in MODELS.values() if not spec.embedded]


def _plan(spec: ModelSpec, survey: Survey, presence: Presence, choices: Mapping[Use, Path]) -> Plan:
    loose, question = _loose(spec, survey, choices)
    published = survey.snapshots.get(spec.id)
    missing = lacking(spec, (part.name for part in loose.files))
    if published is not None and not any(use.model == spec.id for use in choices):
        less = lacking(spec, (part.name for part in published.files))
        if len(less) <= len(missing):
            loose, missing, question = published, less, ""
    rivals: dict[str, int] = {}
    if not loose.repository:
        counts = {it: len(_candidates(Use(spec.id, it), survey, choices)) for it in components_of(spec)}
        rivals = {component: count for component, count in counts.items() if count > 1}
    return Plan(spec, presence, loose, tuple(missing), rivals, question)


def _loose(spec: ModelSpec, survey: Survey, choices: Mapping[Use, Path]) -> tuple[Parts, str]:
    """Return the single files for a model, and the question that its experts leave open."""
    taken = {
        component: found
        for component in components_of(spec)
        if (found := _best(Use(spec.id, component), survey, choices)) is not None
    }
    question = ""
    if spec.experts == 2:
        pairing = _pair(spec, survey, choices)
        question = pairing.question
        for component, expert in zip(EXPERTS, (pairing.high, pairing.low), strict=True):
            taken.pop(component, None)
            if expert is not None:
                taken[component] = expert
    files: list[PartFile] = []
    for component, found in taken.items():
        files += part_files(component, found)
    if survey.tokenizer:
        files += [PartFile(path, f"tokenizer/{path.name}") for path in survey.tokenizer]
    return Parts(tuple(files)), question


def _candidates(use: Use, survey: Survey, choices: Mapping[Use, Path]) -> list[Recognised]:
    """Return the files that fit a use, largest (least rounded) first."""
    if use in choices:
        found = _chosen(survey, choices[use])
        return [] if found is None else [found]
    fitting = [found for found in survey.weights if use in found.uses]
    return sorted(fitting, key=lambda found: (-found.size, str(found.path)))


def _best(use: Use, survey: Survey, choices: Mapping[Use, Path]) -> Recognised | None:
    return next(iter(_candidates(use, survey, choices)), None)


def _pair(spec: ModelSpec, survey: Survey, choices: Mapping[Use, Path]) -> Pairing:
    uses = [Use(spec.id, component) for component in EXPERTS]
    highs, lows = (_candidates(use, survey, choices) for use in uses)
    return pair(highs, lows, high_chosen=uses[0] in choices, low_chosen=uses[1] in choices)


def _chosen(survey: Survey, path: Path) -> Recognised | None:
    try:
        return next((found for found in survey.weights if found.path.samefile(path)), None)
    except OSError:
        return None
