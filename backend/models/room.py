"""Whether the disk has room for what is still to come of a model."""

from __future__ import annotations

from typing import Final

from backend.core.catalogue.table import ModelSpec
from backend.core.errors import StorageFull

#: Left free beside the model, for the database and the videos.
RESERVE_BYTES: Final = 512 * 2**20
_GB: Final = 1e9


def require_room(spec: ModelSpec, needed: int, free: int) -> None:
    """Check that `needed` bytes and a reserve go into the `free` ones.

    Raises:
        StorageFull: they do not.
    """
    if needed and needed + RESERVE_BYTES > free:
        raise StorageFull(
            f"{spec.id} needs {needed / _GB:.1f} GB more and {RESERVE_BYTES / _GB:.1f} GB in reserve, and "
            f"{free / _GB:.1f} GB are free; nothing was fetched",
            suggestions=("Free some disk space, or set WAN22_HOME to a folder on a larger disk.",),
            details={"needed_bytes": needed, "free_bytes": free},
        )
