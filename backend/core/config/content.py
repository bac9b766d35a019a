"""The content of config.json as plain JSON: compares and merges it, and follows dotted names. Knows no section."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from backend.core.config.places import Keys

_PASSWORD: Final = re.compile(r"(?<=:)[^:@/]*(?=@)")


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the values before and after of every key that differs, by dotted name; None stands for no value."""
    found: dict[str, tuple[Any, Any]] = {}

    def compare(one: dict[str, Any], other: dict[str, Any], path: str) -> None:
        for name in dict.fromkeys((*one, *other)):
            old, new = one.get(name), other.get(name)
            if isinstance(old, dict | None) and isinstance(new, dict | None) and (old or new):
                compare(old or {}, new or {}, f"{path}{name}.")
            elif (name in one) != (name in other) or json.dumps(old) != json.dumps(new):
                found[path + name] = (old, new)

    compare(before, after, "")
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; 1 and 1.0 are, 1 and true are not."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


def entry_keys(section: str, rest: str) -> Keys:
    """Split the name of a key of an entry, whose id may hold dots."""
    entry, found, key = rest.partition(".defaults.")
    if found:
        return section, entry, "defaults", key
    entry, _, key = rest.rpartition(".")
    return (section, entry, key) if entry else (section, key)


def remove_key(content: dict[str, Any], name: str) -> bool:
    """Remove what a dotted name leads to, and objects that become empty; return whether there was anything."""
    if name in content:
        del content[name]
        return True
    for key, inside in content.items():
        if isinstance(inside, dict) and name.startswith(f"{key}.") and remove_key(inside, name[len(key) + 1 :]):
            if not inside:
                del content[key]
            return True
    return False


def merged(own: dict[str, Any], other: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a content with the settings of another one that it does not set, and the names that it sets otherwise."""
    stays: list[str] = []

    def merge(mine: dict[str, Any], theirs: dict[str, Any], path: str) -> dict[str, Any]:
        result = dict(mine)
        for name, value in theirs.items():
            if name not in mine:
                result[name] = value
            elif isinstance(mine[name], dict) and isinstance(value, dict):
                result[name] = merge(mine[name], value, f"{path}{name}.")
            elif not same(mine[name], value):
                stays.append(path + name)
        return result

    return merge(own, other, ""), tuple(stays)


def plain_value(value: Any) -> Any:
    """Return a default as a JSON value."""
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    return str(value) if isinstance(value, StrEnum | Path) else value


def without_password(value: Any) -> Any:
    """Return a value without the password of a URL."""
    return _PASSWORD.sub("***", value) if isinstance(value, str) and "://" in value else value
