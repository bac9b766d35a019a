"""What tasks do: real or mock generation, and what happens to a task whose model cannot be used.

Stored in section `generation` of config.json, so that a running server and its workers see a change at the next task.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names
from backend.core.errors.requests import InvalidRequest
from backend.core.requests.forms import OnModelFailure

SECTION: Final = "generation"
#: Longest duration of a mock clip's progress, in seconds.
LONGEST_MOCK: Final = 3600.0
_MOCK_SECONDS: Final = 2.0


class GenerationMode(StrEnum):
    """What a worker does for a task."""

    REAL = "real"
    MOCK = "mock"  # a clip that says it is a mock, for trying clients; nothing is computed


@dataclass(frozen=True, slots=True)
class GenerationPolicy:
    """The stored policy."""

    mode: GenerationMode = GenerationMode.REAL
    on_model_failure: OnModelFailure = OnModelFailure.FAIL  #: for requests that say nothing about it
    mock_seconds: float = _MOCK_SECONDS  #: how long the steps of a mock take together

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GenerationPolicy:
        """Build the policy from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a name is unknown, or a value is none of its choices.
        """
        check_names(values, [field.name for field in fields(cls)], "setting")
        return cls(
            _one_of(GenerationMode, values, "mode", GenerationMode.REAL),
            _one_of(OnModelFailure, values, "on_model_failure", OnModelFailure.FAIL),
            _seconds(values.get("mock_seconds")),
        )


def _one_of(kind: type[StrEnum], values: dict[str, Any], name: str, default: StrEnum) -> Any:
    value = values.get(name, default)
    if value not in list(kind):
        raise InvalidRequest(f"{name} must be {' or '.join(kind)}", details={"field": name, "allowed": list(kind)})
    return kind(value)


def _seconds(value: object) -> float:
    if value is None:
        return _MOCK_SECONDS
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_MOCK:
        raise InvalidRequest(
            f"mock_seconds must be between 0 and {LONGEST_MOCK:g}",
            details={"field": "mock_seconds", "minimum": 0, "maximum": LONGEST_MOCK},
        )
    return float(value)


#: The policy as stored in a config file.
StoredPolicy = StoredSection[GenerationPolicy]


def stored_policy(file: ConfigFile) -> StoredPolicy:
    """Return the policy stored in this file."""
    return StoredSection(file, SECTION, GenerationPolicy.from_json)
