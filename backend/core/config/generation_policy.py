"""What tasks do: real or mock generation, and what happens to a task whose model cannot be used.

Stored in section `generation` of config.json, so that a running server and its workers see a change at the next task.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from backend.core.config.definition import Number, OneOf, plain, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.requests.forms import OnModelFailure

SECTION: Final = "generation"
#: Longest duration of a mock clip's progress, in seconds.
LONGEST_MOCK: Final = 3600.0


class GenerationMode(StrEnum):
    """What a worker does for a task."""

    REAL = "real"
    MOCK = "mock"  # a clip that says it is a mock, for trying clients; nothing is computed


@dataclass(frozen=True, slots=True)
class GenerationPolicy:
    """The stored policy."""

    mode: GenerationMode = setting(
        GenerationMode.REAL, "mock: every clip is a mock that says so, for trying clients", OneOf(GenerationMode)
    )
    on_model_failure: OnModelFailure = setting(
        OnModelFailure.FAIL,
        "What happens to a task whose model cannot be used, where the request says nothing about it",
        OneOf(OnModelFailure),
    )
    mock_seconds: float = setting(2.0, "How long the steps of a mock take together", Number(0, LONGEST_MOCK, "seconds"))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return plain(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GenerationPolicy:
        """Build the policy from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a name is unknown, or a value is none of its choices.
        """
        return read_settings(cls, values)


#: The policy as stored in a config file.
StoredPolicy = StoredSection[GenerationPolicy]


def stored_policy(file: ConfigFile) -> StoredPolicy:
    """Return the policy stored in this file."""
    return StoredSection(file, SECTION, GenerationPolicy.from_json)
