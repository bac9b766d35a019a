"""Headers of safetensors files that lie: each is refused by its reason, before any tensor is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from backend.core.formats.safetensors import MAX_HEADER_BYTES, MAX_TENSORS, read_header
from backend.core.formats.tensors import UnreadableWeights, UnsupportedWeights


def entry(begin: int, end: int, **values: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]} | values


def write(path: Path, header: object, data: bytes = bytes(32)) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a", {"a": entry(0, 16), "b": entry(16, 32), "__metadata__": {"x": "y"}}))
    assert {name: info.shape for name, info in header.tensors.items()} == {"a": (4,), "b": (4,)}
    assert header.metadata == {"x": "y"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": entry(0, 16), "b": entry(12, 28)}, "overlap or leave gaps"),
        ({"a": entry(0, 32), "b": entry(0, 32)}, "overlap or leave gaps"),
        ({"a": entry(0, 16), "b": entry(20, 32)}, "overlap or leave gaps"),
        ({"a": entry(4, 32)}, "overlap or leave gaps"),
        ({"a": entry(0, 16)}, "belong to no tensor"),
        ({"a": entry(0, 64)}, "cut off"),
        ({"a": entry(0, 32, shape=[2**31, 2**31])}, "does not match its shape"),
        ({"a": entry(0, 32, shape=[2**47] * 8)}, "does not match its shape"),
        ({"a": entry(0, 32, shape=[2**63])}, "invalid shape or offset"),
        ({"a": entry(0, 32, shape=[-8])}, "invalid shape or offset"),
        ({"a": entry(0, 32, shape=[8.0])}, "invalid shape or offset"),
        ({"a": entry(0, 32, shape=[1] * 9)}, "invalid shape or offset"),
        ({"a": entry(0, 32, data_offsets=[32, 0])}, "does not match its shape"),
        ({"a": entry(0, 32, data_offsets=[0, 2**63])}, "invalid shape or offset"),
        ({"a": entry(0, 32, dtype=None)}, "has no type"),
        ({"a": [0, 32]}, "has no type"),
        ({"a\x1b]8;;": entry(0, 32)}, "invalid name"),
        ({"a" * 501: entry(0, 32)}, "invalid name"),
        ({"__metadata__": {"x": {"y": "z"}}}, "not strings"),
        (b'{"a": 1, "a": 2}', "lists a twice"),
        (b'{"a": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"\xff\xfe{}", "not JSON"),
        (json.dumps(dict.fromkeys(map(str, range(MAX_TENSORS + 1)))).encode(), "more than"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object, reason: str) -> None:
    with pytest.raises(UnreadableWeights, match=reason):
        read_header(write(tmp_path / "a", header))


def test_a_type_that_is_not_known_is_named_within_bounds(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedWeights) as caught:
        read_header(write(tmp_path / "a", {"a": entry(0, 32, dtype="Q" * 10_000 + "\x1b")}))
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 4096)
    with pytest.raises(UnreadableWeights):
        read_header(path)
