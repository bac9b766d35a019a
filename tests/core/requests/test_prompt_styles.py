"""What is added to a prompt on request, and what is said about one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.requests.prompt_styles import STYLES, enhance, judge, style_of
from backend.core.requests.prompts import MAX_PROMPT_CHARS


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("a photo of a cat on a sofa", "photorealistic"),
        ("a slow dolly shot along a pier, bokeh", "cinematic"),
        ("an anime girl under cherry trees", "anime"),
        ("a wizard and a dragon, photo", "fantasy"),
        ("a watercolour of a harbour", "artistic"),
        ("a red circle moving right", None),
        ("a telephoto", None),
        ("the self", None),
    ],
)
def test_a_style_is_found_by_whole_words_and_their_beginnings(prompt: str, style: str | None) -> None:
    found = style_of(prompt)
    assert (None if found is None else found.name) == style


def test_words_are_added_behind_the_prompt_and_none_twice() -> None:
    prompt = "a photo of a cat, soft directional light"
    once = enhance(prompt)
    assert once.text == f"{prompt}, natural light, realistic textures, steady camera"
    assert [line.split(":")[0] for line in once.applied] == ["Words of the style Photorealistic", "Camera and light"]
    again = enhance(once.text)
    assert (again.text, again.applied) == (once.text, ())


def test_each_kind_of_addition_can_be_left_out() -> None:
    assert enhance("an anime cat", cinematic=False, style=False).text == "an anime cat"
    assert "cel shading" not in enhance("an anime cat", style=False).text
    assert enhance("a cat", cinematic=False, composed=True).applied[0].startswith("Composition")
    named = enhance("a cat, VACE", cinematic=False)
    assert named.vace
    assert named.applied[0].startswith("Composition")


@given(st.text(max_size=MAX_PROMPT_CHARS))
def test_a_prompt_stays_the_beginning_of_what_is_made_of_it_and_never_becomes_too_long(prompt: str) -> None:
    found = enhance(prompt, composed=True)
    assert found.text.startswith(prompt)
    assert len(found.text) <= MAX_PROMPT_CHARS


@pytest.mark.parametrize(("prompt", "valid"), [("", False), ("ab", False), ("123 !?", False), ("a cat", True)])
def test_a_prompt_is_judged_without_an_error(prompt: str, valid: bool) -> None:
    verdict = judge(prompt, 500)
    assert verdict.is_valid is valid
    assert verdict.message
    assert verdict.suggestions
    assert not judge("x" * 501, 500).is_valid
    assert judge("鹤在湖面上慢慢飞过", 500).is_valid


def test_styles_have_different_names_and_add_something() -> None:
    assert len({style.name for style in STYLES}) == len(STYLES)
    assert all(style.additions and style.signs and style.description for style in STYLES)
