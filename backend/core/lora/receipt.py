"""The receipt of a LoRA: what was applied to which expert, what was not, and why.

Part of every result and of the record in the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

APPLIED = "applied"
SKIPPED = "skipped"
#: How many unmatched tensors a receipt lists for each reason.
SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many tensors of a file match one expert."""

    matched: int
    unmatched: int


@dataclass(frozen=True, slots=True)
class FileReceipt:
    """One file of a LoRA."""

    name: str
    sha256: str
    expert: str  #: its target: "high", "low" or "both"
    format: str  #: the tools that write such files
    base: str  #: the models that its shapes fit
    ranks: tuple[int, ...]
    scales: tuple[float, ...]  #: smallest and largest alpha / rank; empty when there are only full differences
    keys: Mapping[str, KeyCount]  #: for each expert that it was matched against
    unmatched: tuple[str, ...]  #: the first few for each reason, with the reason


@dataclass(frozen=True, slots=True)
class LoraReceipt:
    """One LoRA of a task."""

    id: str
    outcome: str  #: "applied" or "skipped"
    strength: Mapping[str, float]  #: for each expert
    files: tuple[FileReceipt, ...] = ()
    trigger_words: tuple[str, ...] = ()
    reason: str | None = field(default=None)  #: why it was skipped, in one sentence
    warnings: tuple[str, ...] = ()  #: what of an applied LoRA has no effect, one sentence each

    @property
    def applied(self) -> bool:
        """Whether the clip was made with it."""
        return self.outcome == APPLIED

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        values["trigger_words"] = list(self.trigger_words)
        values["warnings"] = list(self.warnings)
        values["files"] = [
            file | {"ranks": list(file["ranks"]), "scales": list(file["scales"]), "unmatched": list(file["unmatched"])}
            for file in values["files"]
        ]
        return values
