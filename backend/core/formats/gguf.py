"""Reads the header of a GGUF file within strict limits: names, shapes and types of its tensors, but no values.

The `gguf` package provides the sizes of the types. Its own reader creates an object for every token of an embedded
tokenizer, which takes seconds and hundreds of megabytes, so the header is parsed here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Final

from backend.core.formats.tensors import TensorInfo, UnreadableWeights, UnsupportedWeights

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_TENSORS = 50_000
_MAX_FIELDS = 10_000
_MAX_TEXT_BYTES = 2**20
_MAX_ELEMENTS = 2**22  # of an array of texts: a tokenizer has a few hundred thousand tokens
_MAX_DIMENSIONS = 8
_TEXT, _ARRAY = 8, 9
#: struct's format letters for the format's metadata numbers.
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
#: Prefix of a tensor's name in a field that converters add when a tensor has more dimensions than their library holds.
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
_MAX_KEPT = 16  # longest array of numbers that is kept; enough for shapes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header."""

    tensors: dict[str, TensorInfo]  #: shapes in PyTorch's order, types by their names in the format (`Q4_K`, `F16`)
    spans: dict[str, tuple[int, int]]  #: first and last byte offset (exclusive) of each tensor in the file
    fields: dict[str, object]  #: texts, numbers and short arrays of numbers


def read_gguf_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file (versions 2 and 3, little-endian).

    Raises:
        UnreadableWeights: it is another format, truncated, or inconsistent.
    """
    try:
        with path.open("rb") as file:
            return _Walk(file, path.stat().st_size).header()
    except OSError as error:
        raise UnreadableWeights(f"The file cannot be read ({type(error).__name__})") from error
    except (UnicodeDecodeError, struct.error):
        raise UnreadableWeights("The file's header is damaged") from None


class _Walk:
    """Parses a header from its start."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._size = size

    def header(self) -> GgufHeader:
        if self._bytes(4) != MAGIC:
            raise UnreadableWeights("The file is not a GGUF file")
        version = int(self._number("I"))
        if version not in _VERSIONS:
            big_endian = int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS
            words = "in big-endian byte order" if big_endian else f"of version {version}"
            raise UnsupportedWeights(f"The file is a GGUF file {words}, which is not supported")
        tensors, fields = self._number("Q"), self._number("Q")
        if tensors > _MAX_TENSORS or fields > _MAX_FIELDS:
            raise UnreadableWeights("The file's header is damaged: it claims more tensors than any model has")
        kept: dict[str, object] = {}
        for _ in range(int(fields)):
            name = self._text()
            kept[name] = self._value(int(self._number("I")))
        return GgufHeader(*self._tensors(int(tensors), kept), kept)

    def _tensors(
        self, count: int, fields: dict[str, object]
    ) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]]]:
        # The package imports numpy, which processes that read other files only do not need.
        from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

        found: dict[str, TensorInfo] = {}
        places: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            name = self._text()
            dimensions = int(self._number("I"))
            if dimensions > _MAX_DIMENSIONS:
                raise UnreadableWeights("The file's header is damaged: a tensor has too many dimensions")
            stored = tuple(int(self._number("Q")) for _ in range(dimensions))
            kind, offset = int(self._number("I")), int(self._number("Q"))
            try:
                dtype = GGMLQuantizationType(kind)
            except ValueError:
                raise UnsupportedWeights(f"The file has a tensor of GGUF type {kind}, which is not supported") from None
            block, block_bytes = GGML_QUANT_SIZES[dtype]
            if name in found or (stored and stored[0] % block):
                raise UnreadableWeights("The file's header is damaged: a tensor's shape does not fit its type")
            places[name] = offset, offset + prod(stored) // block * block_bytes
            found[name] = TensorInfo(dtype.name, _shape(stored, fields.get(_ORIGINAL_SHAPE + name)))
        alignment = fields.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
            raise UnreadableWeights("The file's header is damaged: its alignment is invalid")
        start = -(-self._file.tell() // alignment) * alignment
        end = start + max((last for _, last in places.values()), default=0)
        if end > self._size:
            raise UnreadableWeights(f"The file is cut off: {end - self._size} bytes are missing at its end")
        return found, {name: (start + first, start + last) for name, (first, last) in places.items()}

    def _value(self, kind: int) -> object:
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._letter(kind))
        of, length = int(self._number("I")), int(self._number("Q"))
        if of == _TEXT:
            if length > _MAX_ELEMENTS:
                raise UnreadableWeights("The file's header is damaged: it lists more strings than any model has")
            for _ in range(length):
                self._skip(int(self._number("Q")))
            return None
        letter = self._letter(of)
        if length <= _MAX_KEPT:
            return [self._number(letter) for _ in range(length)]
        self._skip(length * struct.calcsize(letter))
        return None

    @staticmethod
    def _letter(kind: int) -> str:
        if kind not in _NUMBERS:
            raise UnreadableWeights("The file's header is damaged: it has a value of an unknown type")
        return _NUMBERS[kind]

    def _text(self) -> str:
        length = int(self._number("Q"))
        if length > _MAX_TEXT_BYTES:
            raise UnreadableWeights("The file's header is damaged: it has an overlong string")
        return self._bytes(length).decode("utf-8")

    def _number(self, letter: str) -> int | float:
        value: int | float = struct.unpack(f"<{letter}", self._bytes(struct.calcsize(letter)))[0]
        return value

    def _bytes(self, count: int) -> bytes:
        content = self._file.read(count)
        if len(content) < count:
            raise UnreadableWeights("The file is cut off inside its header")
        return content

    def _skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise UnreadableWeights("The file is cut off inside its header")
        self._file.seek(count, 1)


def _shape(stored: tuple[int, ...], original: object) -> tuple[int, ...]:
    """Return a shape in PyTorch's order; the format stores the fastest dimension first."""
    turned = stored[::-1]
    if isinstance(original, list) and all(type(side) is int and side >= 0 for side in original):
        return tuple(original) if prod(original) == prod(turned) else turned
    return turned
