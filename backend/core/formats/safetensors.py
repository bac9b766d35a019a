"""Reads the header of a safetensors file and trusts nothing in it.

A safetensors file has eight bytes with the header's length, the header (JSON: names, types, shapes, offsets) and
plain numbers: no code, and nothing is unpickled. Everything is checked against limits and the file's length before
use.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from backend.core.formats.tensors import TensorInfo, UnreadableWeights, UnsupportedWeights, stored_bytes

MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
METADATA = "__metadata__"
#: First bytes of other kinds of files, for a helpful message.
_DISGUISES = (
    (b"PK\x03\x04", "a zip archive, as PyTorch's pickle files are"),
    (b"\x80", "a pickle file"),
    (b"GGUF", "a GGUF file"),
    (b"<", "a web page"),
)
#: First bytes of the pointer that git leaves in place of a large file that was not fetched.
_LFS_POINTER = b"version "
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A checked header."""

    tensors: dict[str, TensorInfo]
    spans: dict[str, tuple[int, int]]  #: first and last byte offset (exclusive) of each tensor in the file
    metadata: dict[str, str]


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of a file; tensor data is not read.

    Raises:
        UnreadableWeights: it is not a safetensors file, or truncated, or its header is inconsistent.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            if len(start) < 8:
                raise UnreadableWeights("The file is empty or cut off")
            (length,) = struct.unpack("<Q", start)
            # A pickle or zip file yields an absurd length here.
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise _what_it_is(start, length, size)
            raw = file.read(length)
    except OSError as error:
        raise UnreadableWeights(f"The file cannot be read ({type(error).__name__})") from error
    return _checked(_parsed(raw), 8 + len(raw), size)


def _what_it_is(start: bytes, length: int, size: int) -> UnreadableWeights:
    if start == _LFS_POINTER:
        return UnreadableWeights(
            "The file is only git's pointer to the file, which was never downloaded (run `git lfs pull`)"
        )
    for beginning, name in _DISGUISES:
        if start.startswith(beginning):
            words = f"The file is {name}; only safetensors files are read, because the others can run code"
            return UnreadableWeights(words) if start.startswith(b"<") else UnsupportedWeights(words)
    if MAX_HEADER_BYTES >= length > size - 8:
        return UnreadableWeights("The file is cut off: its header is longer than the file")
    return UnreadableWeights("The file is not a safetensors file")


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except _Repeated as error:
        raise UnreadableWeights(f"The file's header is damaged: it lists {error} twice") from None
    except (ValueError, RecursionError):
        raise UnreadableWeights("The file is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise UnreadableWeights("The file is not a safetensors file: its header is not an object")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise _Repeated(_CONTROL.sub("?", name[:120]))
        values[name] = value
    return values


class _Repeated(Exception):
    """A name occurs twice in one object."""


def _refuse(_: str) -> object:
    raise ValueError("not JSON")


def _checked(header: dict[str, Any], data: int, size: int) -> SafetensorsHeader:
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnreadableWeights("The file's metadata contains values that are not strings")
    if len(header) > MAX_TENSORS:
        raise UnreadableWeights(f"The file has more than {MAX_TENSORS} tensors")
    tensors: dict[str, TensorInfo] = {}
    spans: dict[str, tuple[int, int]] = {}
    for name, entry in header.items():
        if _CONTROL.search(name) or len(name) > 500:
            raise UnreadableWeights("The file has a tensor with an invalid name")
        info, span = _entry(entry)
        tensors[name] = info
        spans[name] = (data + span[0], data + span[1])
    at = data
    for begin, end in sorted(spans.values()):
        if begin != at:
            raise UnreadableWeights("The file's tensors overlap or leave gaps")
        at = end
    if at > size:
        raise UnreadableWeights(f"The file is cut off: {at - size} bytes are missing at its end")
    if at < size:
        raise UnreadableWeights("The file has bytes that belong to no tensor")
    return SafetensorsHeader(tensors, spans, metadata)


def _entry(entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    """Check one tensor's entry: type, shape, and a byte count that matches them."""
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    if not isinstance(dtype, str):
        raise UnreadableWeights("The file's header is damaged: a tensor has no type")
    if stored_bytes(dtype, 1) is None:
        raise UnsupportedWeights(f"The file has a tensor of the type {dtype[:40]!a}, which is not supported")
    shape, span = _whole_numbers(fields.get("shape")), _whole_numbers(fields.get("data_offsets"))
    if shape is None or len(shape) > MAX_DIMENSIONS or span is None or len(span) != 2:
        raise UnreadableWeights("The file's header is damaged: a tensor has an invalid shape or offset")
    if span[1] - span[0] != stored_bytes(dtype, prod(shape)):
        raise UnreadableWeights("The file's header is damaged: a tensor's size does not match its shape")
    return TensorInfo(dtype, tuple(shape)), (span[0], span[1])


def _whole_numbers(value: Any) -> list[int] | None:
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value):
        return value
    return None
