"""Tensors with a JSON record in one safetensors file, with a digest that reveals damage. Never pickle.

Used for what must outlive a process: job states and kept latents. Writes to the given path as is; the caller renames
the file into place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from backend.core.errors.generation import StateMismatch

_RECORD = "wan22"
_CONTENT = "content_sha256"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors (from any device) and a record of plain JSON values; durable when this returns.

    Raises:
        OSError: the file could not be written.
    """
    held = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    metadata = {_RECORD: json.dumps(dict(record), allow_nan=False), _CONTENT: _digest(held)}
    # Not `save_file`: it writes a temporary file and renames, which is the caller's job, and hides an error's errno.
    content = save(held, metadata=metadata)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the record that `write_tensors` wrote.

    Raises:
        StateMismatch: the file is missing, truncated, changed, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        record = json.loads(metadata[_RECORD])
        content = metadata[_CONTENT]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = f"{path.name} cannot be read ({type(error).__name__})"
        raise StateMismatch(reason, details={"differs": "file"}) from error
    if content != _digest(tensors) or not isinstance(record, dict):
        raise StateMismatch(f"{path.name} has changed since it was written", details={"differs": "file"})
    return tensors, record


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, shapes, types and values."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
