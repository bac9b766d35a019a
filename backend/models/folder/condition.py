"""Judges a model folder by its files and their headers: complete, damaged, or in a form that is not supported.

Reads no weights, and the headers of a component once as long as its files are unchanged. Knows nothing about manifests
and downloads.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from backend.core.catalogue.transformer import WanShape
from backend.core.files import parse_json, read_json
from backend.core.formats.compatibility import Fault, form_fault, shapes_fault
from backend.core.formats.tensors import TensorInfo, UnreadableWeights, UnsupportedWeights
from backend.core.formats.weights import USUAL_NAMES, component_files, read_weights, scaled_weight
from backend.core.lora.keys import parameter_name

INDEX_FILE: Final = "model_index.json"
CONFIG_FILE: Final = "config.json"
#: End of the names of tensors that are computed instead of loaded, and may have any type.
_COMPUTED: Final = "position_ids"


def fault_of(folder: Path, *, contents: bool = False) -> Fault | None:
    """Describe what keeps a folder from being used: missing files, or weights in a form that is not supported.

    With `contents`, also unreadable headers, and weights that do not fit their configuration; those are otherwise left
    to verification and to the loader.
    """
    try:
        index = read_json(folder / INDEX_FILE)
    except OSError:
        return Fault(f"{INDEX_FILE} cannot be read")
    except ValueError as error:
        return Fault(f"{INDEX_FILE} {error}")
    if not isinstance(index, dict):
        return Fault(f"{INDEX_FILE} is not a JSON object")
    parts = [name for name, value in index.items() if isinstance(value, list) and len(value) == 2 and value[0]]
    for part in parts:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            return Fault(f"the folder {part} is missing or empty")
    for part in parts:
        fault = _part_fault(folder / part, contents=contents) if part in USUAL_NAMES else None
        if fault is not None:
            return fault
    return None


def _part_fault(place: Path, *, contents: bool) -> Fault | None:
    """Judge the weight files of one component."""
    component = place.name
    try:
        names = component_files(place, USUAL_NAMES[component])
        if not names:
            return Fault(f"the folder {component} has no safetensors or GGUF file")
        states = []
        for name in names:
            if not (place / name).is_file():
                return Fault(f"the file {component}/{name} is missing")
            status = (place / name).stat()
            states.append((name, status.st_size, status.st_mtime_ns))
        fault = _judge(place, tuple(states), _config(place))
        return fault if contents or (fault is not None and not fault.supported) else None
    except UnreadableWeights as error:
        return Fault(f"{component} cannot be used. {error}")
    except OSError as error:
        return Fault(f"the folder {component} cannot be read ({type(error).__name__})")


@lru_cache(maxsize=64)  # every listing of the models asks for all of them
def _judge(place: Path, states: tuple[tuple[str, int, int], ...], config: bytes) -> Fault | None:
    """Judge headers, types and scales, and a transformer's shapes by its configuration."""
    component = place.name
    weights: dict[str, TensorInfo] = {}
    scales: dict[str, tuple[str, TensorInfo]] = {}
    for name, _, _ in states:
        try:
            header = read_weights(place / name)
        except UnreadableWeights as error:
            supported = not isinstance(error, UnsupportedWeights)
            return Fault(f"the file {component}/{name} cannot be used. {error}", supported)
        weights |= header.tensors
        scales |= {scale: (scaled_weight(scale), info) for scale, info in header.scales.items()}
    fault = form_fault(weights, scales, [name for name in weights if not name.endswith(_COMPUTED)])
    shape = _shape(config) if component.startswith("transformer") else None
    if fault is None and shape is not None:
        stored = {parameter_name(name) or name: info for name, info in weights.items()}
        fault = shapes_fault(stored, shape.parameters())
        if fault is not None:
            return Fault(f"in {component}, {fault.reason}: the weights are not what {CONFIG_FILE} says")
    return None if fault is None else Fault(f"in {component}, {fault.reason}", fault.supported)


def _config(place: Path) -> bytes:
    try:
        return (place / CONFIG_FILE).read_bytes()
    except OSError:
        return b""


def _shape(config: bytes) -> WanShape | None:
    """Return the structure that a transformer's configuration describes; None where it describes none."""
    try:
        values: Any = parse_json(config)
        return WanShape.from_config(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
