"""Applies LoRAs to a loaded model: matches tensors to parameters, activates them per job, and writes receipts.

Every tensor of a file is applied, or named in the receipt: as left out, or as the reason for skipping the LoRA.
Knows files by the references in a request, and the model by its structure; knows no tasks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.generation import LoraNotApplied
from backend.core.errors.requests import LoraIncompatible, LoraInvalid, LoraNotFound
from backend.core.lora.experts import base_name
from backend.core.lora.keys import BOTH
from backend.core.lora.match import Change, Match, match_tensors, read_lora
from backend.core.lora.presets import trigger_words
from backend.core.lora.receipt import APPLIED, SHOWN_KEYS, SKIPPED, FileReceipt, KeyCount, LoraReceipt
from backend.core.requests.forms import LoraFileRef, LoraUse, OnLoraFailure
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.lora.deltas import Difference, ExpertPatch, InstalledPatch, LowRank

#: Raised for a LoRA that cannot be applied; with `on_lora_failure=skip` the task continues without it.
_LORA_PROBLEMS = (LoraInvalid, LoraNotFound, LoraIncompatible)


@dataclass(frozen=True, slots=True)
class _Active:
    """The owner of the changes on a transformer."""

    owner: LoraStack
    expert: str
    installed: InstalledPatch


#: One entry for each transformer with active changes; garbage-collected with the model.
_ACTIVE: weakref.WeakKeyDictionary[nn.Module, _Active] = weakref.WeakKeyDictionary()


@dataclass(eq=False, slots=True, weakref_slot=True)
class LoraStack:
    """The LoRAs of one job. Built once per attempt; activating and deactivating are cheap."""

    device: torch.device
    receipts: tuple[LoraReceipt, ...] = ()
    _patches: dict[str, ExpertPatch] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not any(patch.changes for patch in self._patches.values())

    def activate(self, expert: str, transformer: nn.Module) -> None:
        """Activate exactly these changes on a transformer; does nothing if they are active.

        Without changes for this expert, the transformer has its original weights.
        """
        active = _ACTIVE.get(transformer)
        if active is not None and active.owner is self and active.expert == expert:
            return
        self.deactivate(transformer)
        patch = self._patches.get(expert)
        if patch is not None and patch.changes:
            _ACTIVE[transformer] = _Active(self, expert, patch.put_on(transformer, self.device))

    @staticmethod
    def deactivate(transformer: nn.Module) -> None:
        """Remove whatever is active; the weights are the same tensors as before."""
        active = _ACTIVE.pop(transformer, None)
        if active is not None:
            active.installed.take_off()


def build_stack(
    components: WanComponents,
    uses: Sequence[LoraUse],
    open_file: Callable[[LoraFileRef], Path],
    on_failure: OnLoraFailure = OnLoraFailure.SKIP,
    *,
    preset: str | None = None,
) -> LoraStack:
    """Read a request's LoRAs and match them to the loaded model; nothing is activated yet.

    Of a LoRA for another generation of the model, the parts that this one has are applied. One that is missing,
    damaged or incomplete is skipped as a whole, with the reason in its receipt.

    Raises:
        LoraNotApplied: no key of a LoRA fits the model; or one was not applied and `on_failure` is FAIL, or it is the
            `preset`, whose steps and guidance are of use only with it.
    """
    stack = LoraStack(components.device)
    shape = WanShape.from_config(components.transformer.config)
    experts = (HIGH,) if components.transformer_2 is None else (HIGH, LOW)
    receipts = []
    for use in uses:
        reading = _Reading(use, shape, experts, components.spec.id)
        try:
            reading.read(open_file)
        except _LORA_PROBLEMS as error:
            if use.id == preset:
                raise _preset_not_applied(use.id, error.message) from error
            if on_failure is OnLoraFailure.FAIL:
                raise LoraNotApplied(f"The LoRA {use.id} was not applied: {error.message}") from error
            receipts.append(reading.receipt(SKIPPED, error.message))
        else:
            if use.id == preset and not reading.patches:
                raise _preset_not_applied(use.id, "; ".join(reading.warnings) or "its strength is 0")
            receipts.append(reading.receipt(APPLIED, None))
            reading.add_to(stack._patches)
    stack.receipts = tuple(receipts)
    return stack


def _preset_not_applied(lora_id: str, reason: str) -> LoraNotApplied:
    return LoraNotApplied(
        f"The preset {lora_id} needs its LoRA, which was not applied: {reason}",
        suggestions=("Leave the preset out, or choose one that was made for this model.",),
    )


@dataclass(slots=True)
class _Reading:
    """One LoRA being read."""

    use: LoraUse
    shape: WanShape
    experts: tuple[str, ...]
    model: str
    files: list[FileReceipt] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    patches: dict[str, ExpertPatch] = field(default_factory=dict)

    def read(self, open_file: Callable[[LoraFileRef], Path]) -> None:
        for ref in self.use.files:
            self._read_file(ref, open_file(ref))

    def strength(self, expert: str) -> float:
        return self.use.strength if expert == HIGH else self.use.strength_2

    def receipt(self, outcome: str, reason: str | None) -> LoraReceipt:
        strength = {expert: self.strength(expert) for expert in self._touched()}
        return LoraReceipt(
            self.use.id,
            outcome,
            strength,
            tuple(self.files),
            tuple(dict.fromkeys(self.words)),
            reason,
            warnings=tuple(self.warnings) if outcome == APPLIED else (),
        )

    def add_to(self, patches: dict[str, ExpertPatch]) -> None:
        for expert, patch in self.patches.items():
            for parameter, changes in patch.changes.items():
                for change in changes:
                    patches.setdefault(expert, ExpertPatch()).add(parameter, change)

    def _touched(self) -> list[str]:
        wanted = {ref.expert for ref in self.use.files}
        return [expert for expert in self.experts if expert in wanted or BOTH in wanted]

    def _read_file(self, ref: LoraFileRef, path: Path) -> None:
        header = read_lora(path)
        try:
            match = match_tensors(header.tensors, header.metadata, self.shape)
        except ValueError as error:
            raise LoraInvalid(f"{ref.name}: {error}") from error
        self.words += trigger_words(header.metadata)
        experts = [expert for expert in self.experts if ref.expert in (expert, BOTH)]
        count = {expert: _count(match, expert, self.experts) for expert in experts}
        self.files.append(
            FileReceipt(
                name=ref.name,
                sha256=ref.sha256,
                expert=ref.expert,
                format=match.format,
                base=base_name(header.tensors, header.metadata, {self.model: self.shape}),
                ranks=match.ranks,
                scales=(),
                keys=count,
                unmatched=_shown(match),
            )
        )
        self._check(ref, match, count)
        scales = self._load(ref, path, match, experts)
        if scales:
            self.files[-1] = replace(self.files[-1], scales=(min(scales), max(scales)))

    def _check(self, ref: LoraFileRef, match: Match, count: dict[str, KeyCount]) -> None:
        if not any(one.matched for one in count.values()):
            raise LoraNotApplied(
                f"The LoRA {self.use.id} was not applied: not one tensor of {ref.name} has a place in {self.model}"
            )
        left_out = len(match.left_out)
        obstacles = max(one.unmatched for one in count.values()) - left_out
        if obstacles:
            first = f"; the first one is {_named(*match.obstacles[0])}" if match.obstacles else ""
            raise LoraIncompatible(f"{obstacles} tensors of {ref.name} have no place in {self.model}{first}")
        if left_out:
            self.warnings.append(
                f"{left_out} of {left_out + match.matched} tensors of {ref.name} are not for {self.model} and were "
                f"left out; the first one is {_named(*match.left_out[0])}"
            )

    def _load(self, ref: LoraFileRef, path: Path, match: Match, experts: Sequence[str]) -> list[float]:
        """Read and check the tensors of every change, add them to their experts' patches, and return the scales."""
        parameters = self.shape.parameters()
        scales: list[float] = []
        silent = 0
        try:
            with safe_open(path, framework="pt") as file:
                for change in match.changes:
                    wanted = [expert for expert in experts if change.concerns(expert)]
                    if not wanted:
                        continue
                    loaded, scale = _load_change(file, change, parameters[change.parameter])
                    if change.rank:
                        scales.append(scale)
                        silent += not scale
                    for expert in wanted:
                        factor = scale * self.strength(expert)
                        if factor:
                            patch = self.patches.setdefault(expert, ExpertPatch())
                            patch.add(change.parameter, loaded(factor))
        except (SafetensorError, OSError) as error:
            raise LoraInvalid(f"{ref.name} cannot be read ({type(error).__name__})") from error
        if silent:
            self.warnings.append(f"alpha is 0 in {silent} of {len(scales)} layers of {ref.name}: they change nothing")
        return scales


def _shown(match: Match) -> tuple[str, ...]:
    """Return the first unmatched tensors for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, misfit in match.unmatched:
        by_reason.setdefault(misfit, []).append(_named(name, misfit))
    return tuple(named for group in by_reason.values() for named in group[:SHOWN_KEYS])


def _named(name: str, misfit: str) -> str:
    return f"{name[:120]}: {misfit}"


def _count(match: Match, expert: str, experts: tuple[str, ...]) -> KeyCount:
    """Count the tensors for one expert; those that the file assigns to another expert do not count as unmatched."""
    mine = sum(len(change.keys) for change in match.changes if change.concerns(expert))
    homeless = sum(len(change.keys) for change in match.changes if not any(change.concerns(one) for one in experts))
    return KeyCount(mine, len(match.unmatched) + homeless)


def _load_change(
    file: Any, change: Change, shape: tuple[int, ...]
) -> tuple[Callable[[float], LowRank | Difference], float]:
    """Return the change as a function of its factor, and the scale (alpha / rank) that the file specifies."""
    if change.diff is not None:
        value = _tensor(file, change.diff).reshape(shape)
        return lambda factor: Difference(value, factor), 1.0
    if change.down is None or change.up is None:
        raise ValueError("a change is either a difference or a product")
    down, up = _tensor(file, change.down).flatten(1), _tensor(file, change.up).flatten(1)
    bias = None if change.up_bias is None else _tensor(file, change.up_bias)
    scale = change.scale
    if change.alpha is not None:
        scale = float(_tensor(file, change.alpha)) / change.rank
    return lambda factor: LowRank(down, up, factor, bias), scale


def _tensor(file: Any, name: str) -> torch.Tensor:
    tensor: torch.Tensor = file.get_tensor(name)
    # torch.isfinite does not support eight-bit floats.
    wide = tensor.to(torch.float32) if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    if not bool(torch.isfinite(wide).all()):
        raise LoraInvalid(f"The tensor {name[:120]} holds values that are not numbers")
    return tensor
