"""What is told about the configuration: one setting in force, and what became of an older file. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.core.config.older_keys import Generation, OlderSetting
from backend.core.config.places import Position
from backend.core.config.section import ConfigFault


class Source(StrEnum):
    """Where a value comes from; each is above the ones behind it."""

    COMMAND_LINE = "command line"
    ENVIRONMENT = "environment"
    FILE = "config.json"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as it is in force."""

    name: str  #: dotted
    value: Any  #: without secrets
    default: Any
    source: Source
    meaning: str
    legal: str  #: the legal values in words
    position: Position | None = None  #: where it stands in the file
    next_value: Any = None  #: the value from the next start on, without secrets, where it is another one
    at_restart: bool = False  #: whether a change takes effect at the next start, not at the next task
    over_http: bool = True  #: whether it can be changed over HTTP


@dataclass(frozen=True, slots=True)
class Migration:
    """What became of a configuration of the earlier application."""

    generation: Generation | None  #: None: there is nothing of the earlier application in it
    settings: tuple[OlderSetting, ...]
    missing: tuple[str, ...]  #: sections that the earlier application required
    unknown: tuple[str, ...]  #: sections and settings that neither application knows; kept
    changed: tuple[str, ...]  #: dotted names of the keys of config.json that are different now
    stays: tuple[str, ...]  #: dotted names that this home had set itself, and which stay
    faults: tuple[ConfigFault, ...]  #: what is ignored in the result
