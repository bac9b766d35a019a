"""A model with a small world says which words of a prompt it does not know; every other model reads any text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager
from backend.models.folder.vocabulary import VOCABULARY_FILE, read_vocabulary
from training.recipes.folder import vocabulary_file
from training.world import scenes

TINY = [spec.id for spec in MODELS.values() if spec.embedded]


@pytest.mark.parametrize("model", TINY)
def test_the_declaration_is_the_world_that_the_model_was_trained_on(model: str) -> None:
    folder = EMBEDDED_MODELS / model
    assert (folder / VOCABULARY_FILE).read_text() == vocabulary_file()
    vocabulary = read_vocabulary(folder)
    assert vocabulary is not None
    assert set(scenes.vocabulary()) <= vocabulary.known
    for scene in scenes.all_scenes():
        assert vocabulary.note(model, scene.caption) is None, scene.caption


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("A Cat, riding a bicycle!", ("cat", "riding", "bicycle")),
        ("красный круг", ("красный", "круг")),
        ("लाल वृत्त", ("लाल", "वृत्त")),
        ("a red 🐱❤️ circle", ("🐱", "❤")),
        ("masterpiece, (red circle:1.2)", ("masterpiece", "1", "2")),
        ("cat cat CAT red", ("cat",)),
        ("赤い円", ("赤い円",)),
    ],
)
def test_unknown_words_are_named_in_any_script(prompt: str, unknown: tuple[str, ...]) -> None:
    vocabulary = read_vocabulary(EMBEDDED_MODELS / TINY[0])
    assert vocabulary is not None
    assert vocabulary.unknown(prompt) == unknown
    note = vocabulary.note("tiny", prompt)
    assert note is not None
    assert note.startswith(f"tiny does not know: {', '.join(unknown)}; ")
    assert ("left to chance" in note) is not vocabulary.knows_any(prompt)
    assert "navy" in note, "it says what it knows"


@pytest.mark.parametrize(
    "prompt", ["ａ ＲＥＤ circle", "red circle -- moving right", "the background is pink, a ring grows"]
)
def test_spelling_and_punctuation_do_not_matter(prompt: str) -> None:
    vocabulary = read_vocabulary(EMBEDDED_MODELS / TINY[0])
    assert vocabulary is not None
    assert vocabulary.note("tiny", prompt) is None


@pytest.mark.parametrize("prompt", ["on a", "!!!", "..."])
def test_a_prompt_that_shows_nothing_is_told(prompt: str) -> None:
    vocabulary = read_vocabulary(EMBEDDED_MODELS / TINY[0])
    assert vocabulary is not None
    assert "finds nothing in it to show" in str(vocabulary.note("tiny", prompt))


def test_many_unknown_words_are_counted() -> None:
    vocabulary = read_vocabulary(EMBEDDED_MODELS / TINY[0])
    assert vocabulary is not None
    assert " and 12 more; " in str(vocabulary.note("tiny", " ".join(f"w{number}" for number in range(20))))


@pytest.mark.parametrize(
    "declared", [None, "", "[]", '{"words": 5}', '{"sentence": "x"}', '{"sentence": "x", "words": {"a": 1}}']
)
def test_a_folder_that_declares_nothing_readable_knows_every_word(tmp_path: Path, declared: str | None) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED_MODELS / TINY[0] / "tokenizer", folder / "tokenizer")
    if declared is not None:
        (folder / VOCABULARY_FILE).write_text(declared)
    assert read_vocabulary(folder) is None


def test_a_tokenizer_with_parts_of_words_knows_every_word(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    shutil.copy(EMBEDDED_MODELS / TINY[0] / VOCABULARY_FILE, folder)
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    assert read_vocabulary(folder) is None


def test_full_size_models_have_no_closed_vocabulary(tmp_path: Path) -> None:
    models = ModelManager(Home(tmp_path).create(), has_gpu=False)
    closed = {spec.id for spec in MODELS.values() if models.unknown_words(spec, "zyzzyva") is not None}
    assert closed == set(TINY)
