"""The words that a model with a small world knows, as its folder declares them.

Only a folder with `vocabulary.json` has a closed vocabulary; every other model reads any text. Which words are known is
taken from the tokenizer beside it, so that the declaration cannot differ from what the model reads.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from backend.core.files import read_json
from backend.models.folder.prompt_length import TOKENIZER_FILE

VOCABULARY_FILE: Final = "vocabulary.json"
_NAMED: Final = 8  # unknown words in one sentence


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The closed vocabulary of one model."""

    known: frozenset[str]  #: every word that the tokenizer has a token for
    sentence: str  #: the form of a prompt, such as "a {colour} {shape}"
    words: Mapping[str, tuple[str, ...]]  #: what may stand in each place of the sentence

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the words and symbols of a text that the model ignores, once each and in their order."""
        return tuple(dict.fromkeys(word for word in _words(text) if word not in self.known))

    def knows_any(self, text: str) -> bool:
        """Whether a text has a word that stands for something to be seen."""
        shown = {word for group in self.words.values() for phrase in group for word in phrase.split()}
        return not shown.isdisjoint(_words(text))

    def note(self, model: str, text: str) -> str | None:
        """Say which words of a prompt the model does not know, and what it knows; None when it knows all of them."""
        unknown = self.unknown(text)
        if not unknown and self.knows_any(text):
            return None
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        missing = f"does not know: {', '.join(unknown[:_NAMED])}{more}" if unknown else "finds nothing in it to show"
        chance = "it ignores these words" if self.knows_any(text) else "what the clip shows is left to chance"
        groups = "; ".join(f"{name}: {', '.join(words)}" for name, words in self.words.items())
        return f"{model} {missing}; {chance}. It knows: {self.sentence}. {groups}"


def unknown_words(folder: Path, model: str, text: str) -> str | None:
    """Return the `Vocabulary.note` of a prompt for the model in a folder; None where it reads any text."""
    vocabulary = read_vocabulary(folder)
    return None if vocabulary is None else vocabulary.note(model, text)


def _words(text: str) -> list[str]:
    """Split a text as the tokenizer does, but keep pictures such as emoji, which are meant as words."""
    kept = []
    for character in unicodedata.normalize("NFKC", text).lower():
        category = unicodedata.category(character)
        inside = category[0] in "LMN" or character == "_"
        kept.append(character if inside else f" {character} " if category == "So" else " ")
    found = "".join(kept).split()
    return [word for word in found if any(unicodedata.category(one)[0] in "LNS" for one in word)]


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Return the closed vocabulary of a model folder; None where it declares none, or one that cannot be read."""
    try:
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder)]
    except OSError:
        return None
    return _read(folder, tuple(states))


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / VOCABULARY_FILE, folder / TOKENIZER_FILE


@lru_cache(maxsize=16)  # every request asks for it
def _read(folder: Path, _states: tuple[tuple[int, int], ...]) -> Vocabulary | None:
    declaration, tokenizer = _files(folder)
    try:
        declared = read_json(declaration)
        model = read_json(tokenizer)["model"]
        if model["type"] != "WordLevel":  # parts of words are tokens: nothing is unknown
            return None
        words = {str(name): tuple(map(str, group)) for name, group in declared["words"].items()}
        return Vocabulary(frozenset(model["vocab"]), str(declared["sentence"]), words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
