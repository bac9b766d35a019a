"""Reads `extra_model_paths.yaml`, in which users of ComfyUI name the folders that hold their models and LoRAs.

The file is foreign: what is wrong with it, or with a folder in it, becomes a note, and the rest is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from backend.core.files import decode_json

FILE_NAME: Final = "extra_model_paths.yaml"
MAX_BYTES: Final = 65_536
#: Every alias may double what is read, so a small file could fill the memory.
MAX_ALIASES: Final = 16
MAX_NOTES: Final = 10
_ENDINGS: Final = (".yaml", ".yml")
#: ComfyUI's names of the folders that can hold parts of a video model or LoRAs, the older names included.
_KINDS: Final = frozenset(
    ("checkpoints", "diffusers", "diffusion_models", "unet", "vae", "text_encoders", "clip", "clip_vision", "loras")
)
#: What safe_load raises besides YAMLError for values that look like a number, a date or a switch and are none.
_BAD_VALUES: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(slots=True)
class ExtraPaths:
    """The folders that the files name, and what could not be followed."""

    folders: list[Path] = field(default_factory=list)  #: existing ones, each once, the defaults of a file first
    notes: list[str] = field(default_factory=list)  #: sentences for the user


def follow(roots: Iterable[Path]) -> ExtraPaths:
    """Return the folders named by the files among `roots`, and by the one in the top folder of each root."""
    found, notes = ExtraPaths(), []
    files: dict[Path, None] = {}
    for root in roots:
        path = root if root.name.lower().endswith(_ENDINGS) else root / FILE_NAME
        if _is(path, stat.S_IFREG):
            files[path] = None
    for path in files:
        try:
            sections = _sections(path)
        except ValueError as error:
            notes.append(f"{path} {error}, so the folders in it are not searched")
            continue
        for folder in _folders(path, sections, notes):
            if folder not in found.folders:
                found.folders.append(folder)
    found.notes = notes[:MAX_NOTES]
    if len(notes) > MAX_NOTES:
        found.notes.append(f"{len(notes) - MAX_NOTES} more entries of {FILE_NAME} cannot be followed")
    return found


def _sections(path: Path) -> dict[str, dict[object, object]]:
    """Return the sections that have content.

    Raises:
        ValueError: the file cannot be used; the message completes the sentence "The file ...".
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or type(error).__name__})") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES // 1024} KiB")
    value = _parse(decode_json(content))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("has no sections")
    return {str(name): section for name, section in value.items() if isinstance(section, dict)}


def _parse(text: str) -> object:
    try:
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))
        if aliases > MAX_ALIASES:
            raise _TooManyAliases(f"has more than {MAX_ALIASES} aliases")
        value: object = yaml.safe_load(text)
    except _TooManyAliases:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"is not valid YAML{place}") from None
    except yaml.YAMLError:
        raise ValueError("has characters that YAML does not allow") from None
    except _BAD_VALUES:
        raise ValueError("has a value that cannot be read") from None
    return value


class _TooManyAliases(ValueError):
    pass


def _folders(path: Path, sections: dict[str, dict[object, object]], notes: list[str]) -> Iterator[Path]:
    first: list[Path] = []
    later: list[Path] = []
    for name, section in sections.items():
        base = _base(path, section.get("base_path"))
        if base is None:
            notes.append(f"{path}: `base_path` of section {name} is not a path")
            continue
        # Without its base, every folder of the section is missing: one note says it all.
        usable = _is(base, stat.S_IFDIR)
        if not usable:
            notes.append(f"{path}: the folder {base} of section {name} does not exist")
        for kind, value in section.items():
            if kind not in _KINDS or value is None:
                continue
            if not isinstance(value, str):
                notes.append(f"{path}: `{kind}` of section {name} is not a path")
                continue
            for line in filter(None, map(str.strip, value.splitlines())):
                folder = base / _expanded(line)
                if _is(folder, stat.S_IFDIR):
                    (first if section.get("is_default") is True else later).append(folder)
                elif usable or not folder.is_relative_to(base):
                    notes.append(f"{path}: the folder {folder} of section {name} does not exist")
    yield from first
    yield from later


def _base(path: Path, value: object) -> Path | None:
    """Return the folder to which the others of a section are relative; None if it is not a path."""
    if value is None:
        return path.absolute().parent
    return path.absolute().parent / _expanded(value.strip()) if isinstance(value, str) else None


def _expanded(text: str) -> Path:
    """Replace `~` and variables as ComfyUI does: unknown ones stay as they are."""
    return Path(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH111 - pathlib's raises for unknown users


def _is(path: Path, kind: int) -> bool:
    try:
        return stat.S_IFMT(path.stat().st_mode) == kind
    except (OSError, ValueError):  # names that no file can have
        return False
