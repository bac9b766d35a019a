"""The JSON reader: every encoding found in practice, and a sentence for everything that is not JSON."""

from __future__ import annotations

import pytest

from backend.core.files import parse_json

TEXT = '{"name": "Grüße 🎬", "size": [1, 2.5, null]}'
VALUE = {"name": "Grüße 🎬", "size": [1, 2.5, None]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_every_encoding_of_json_is_read(encoding: str) -> None:
    assert parse_json(TEXT.encode(encoding)) == VALUE


def test_decoded_text_may_still_start_with_a_byte_order_mark() -> None:
    assert parse_json("\ufeff" + TEXT) == VALUE
    assert parse_json('"\\ud83c\\udfac"') == "🎬"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "line 1, column 1"),
        (b'{\n  "a": 1,\n}', "line 2, column 9|line 3, column 1"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'\xff\xfe{\x00"', "UTF-16"),
        (b'{"a": "caf\xe9"}', "UTF-8"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "out of range"),
        (b"1" * 5000, "out of range"),
        (b'["\\ud800"]', "Unicode"),
        (b'{"\\udfff": 1}', "Unicode"),
        (b"[" * 200_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
    ],
)
def test_invalid_json_is_reported_as_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_json(content)
