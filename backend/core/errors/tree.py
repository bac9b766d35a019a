"""The whole tree of errors: every class of this folder, and the class that has a stored code."""

from __future__ import annotations

from collections.abc import Iterator

from backend.core.errors import access, cuda, generation, interruptions, lookups, models, requests, surroundings
from backend.core.errors.base import WanError
from backend.core.errors.interruptions import Interrupted

#: The modules whose classes are the tree; importing them here makes it complete.
_BRANCHES = (requests, lookups, models, surroundings, generation, cuda, interruptions, access)


def all_kinds() -> Iterator[type[WanError]]:
    """Yield every class of the tree, each after its base; classes that other layers add come where they belong."""
    waiting: list[type[WanError]] = [WanError]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += reversed(kind.__subclasses__())


def public_kinds() -> list[type[WanError]]:
    """Return every class that a user can meet: all but the interruptions."""
    return [kind for kind in all_kinds() if not issubclass(kind, Interrupted)]


def kind_of(code: str | None) -> type[WanError]:
    """Return the class with this code; `WanError` where an older or newer version wrote one that is unknown here."""
    return next((kind for kind in public_kinds() if kind.code == code), WanError)
