"""One word, one thing: no class name twice, and the glossary speaks of things that the code has."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "words.md").read_text()
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.MULTILINE)


@pytest.mark.parametrize("tree", ["backend", "training"])
def test_no_two_public_classes_share_a_name(tree: str) -> None:
    names = Counter(
        node.name
        for path in (ROOT / tree).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(names) > 10
    assert [name for name, count in names.items() if count > 1] == []


def test_every_word_of_the_glossary_has_one_plain_sentence() -> None:
    lines = [line for line in GLOSSARY.splitlines() if line.startswith("- ")]
    entries = dict(ENTRY.findall(GLOSSARY))
    assert len(entries) == len(lines) > 20
    for word, sentence in entries.items():
        assert sentence.endswith("."), word
        assert ". " not in sentence, word


def test_every_word_of_the_glossary_is_a_word_of_the_code() -> None:
    named: set[str] = set()
    for path in (ROOT / "backend").rglob("*.py"):
        with path.open("rb") as file:
            names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
        # `DownloadInUse` and `in_use` both count for "in use"
        named |= {re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", name).lower() for name in names}
    for word in dict(ENTRY.findall(GLOSSARY)):
        assert any(re.search(rf"\b{word}s?\b", name) for name in named), f"{word} names nothing in backend/"
