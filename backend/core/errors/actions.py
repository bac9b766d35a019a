"""Next steps that a client can execute: what each action is called, which values it has, and what executes it.

An action is plain JSON, so that it survives the database and any client can read it. Only measured or known values
go into one: where nobody knows what would help, the error has a sentence alone.
"""

from __future__ import annotations

from typing import Any, Final

from backend.core.errors.base import Action

#: Name of each action -> its values, and the call that executes it.
ACTIONS: Final[dict[str, tuple[str, str]]] = {
    "resubmit": (
        "`changes`: fields of the request with their new values; empty = the same request",
        "`POST /api/v1/generation/submit` with the request and these changes",
    ),
    "retry": ("`after_seconds`: how long to wait first", "the same call again"),
    "download": ("`model_type`: the model", "`POST /api/v1/models/download` with `model_type`"),
    "free_disk": (
        "`bytes`: how much must become free, at least",
        "`POST /api/v1/models/cleanup` lists what can be deleted, and deletes it with `dry_run: false`",
    ),
}


def resubmit(**changes: Any) -> Action:
    """Send the request again with these fields changed."""
    return {"action": "resubmit", "changes": changes}


def retry(after_seconds: float) -> Action:
    """Make the same call again after a pause."""
    return {"action": "retry", "after_seconds": after_seconds}


def download(model: str) -> Action:
    """Download a model, or what is missing or damaged of it."""
    return {"action": "download", "model_type": model}


def free_disk(needed_bytes: int) -> Action:
    """Free at least this many bytes."""
    return {"action": "free_disk", "bytes": needed_bytes}
