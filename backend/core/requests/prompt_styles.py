"""The rules that look at a prompt and add to it: styles, the words that reveal them, and the words that they add.

Nothing here runs by itself: a client asks for it, sees the result, and sends what it likes. Whatever is added follows
the prompt, which stays as it is. Pure text; knows no models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from backend.core.requests.prompts import MAX_PROMPT_CHARS

#: Fewest characters that can describe anything.
_SHORTEST: Final = 3
#: A prompt with fewer words leaves most of the picture to chance.
_FEW_WORDS: Final = 6


@dataclass(frozen=True, slots=True)
class PromptLook:
    """A look."""

    name: str
    display_name: str
    description: str
    signs: tuple[str, ...]  #: words and beginnings of words that reveal it
    additions: tuple[str, ...]


#: In the order in which they are looked for; of two that are found, the one with more signs counts.
STYLES: Final = (
    PromptLook(
        "photorealistic",
        "Photorealistic",
        "Looks like a photograph",
        ("photo", "realistic", "realism", "dslr", "documentary"),
        ("natural light", "realistic textures"),
    ),
    PromptLook(
        "cinematic",
        "Cinematic",
        "Looks like a film",
        ("cinematic", "film", "movie", "lens", "bokeh", "dolly", "close-up", "wide shot"),
        ("film lighting", "shallow depth of field"),
    ),
    PromptLook(
        "anime",
        "Anime",
        "Looks like Japanese animation",
        ("anime", "manga", "ghibli", "cel-shaded", "cel shading"),
        ("clean line art", "cel shading"),
    ),
    PromptLook(
        "fantasy",
        "Fantasy",
        "Shows another world",
        ("fantasy", "dragon", "magic", "wizard", "elf", "fairy", "castle"),
        ("volumetric light", "intricate detail"),
    ),
    PromptLook(
        "artistic",
        "Artistic",
        "Looks painted or drawn",
        ("painting", "painted", "watercolor", "watercolour", "oil on canvas", "sketch", "drawing", "impressionis"),
        ("visible brush strokes", "harmonious colors"),
    ),
)
#: Words about camera and light, for any prompt.
_CINEMATIC: Final = ("steady camera", "soft directional light")
#: The term that clients of the earlier application know for a composed look.
_VACE: Final = re.compile(r"\bvace\b", re.IGNORECASE)
_COMPOSED: Final = ("balanced composition", "coherent colors")
_LETTER: Final = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Enhanced:
    """A prompt and what was added to it."""

    prompt: str
    text: str  #: begins with the prompt
    applied: tuple[str, ...]  #: a sentence about each addition
    style: PromptLook | None
    vace: bool  #: whether the prompt names VACE


@dataclass(frozen=True, slots=True)
class PromptJudgement:
    """Whether a prompt can be sent, and what would make it better."""

    is_valid: bool
    message: str
    suggestions: tuple[str, ...] = ()


def style_of(prompt: str) -> PromptLook | None:
    """Return the style that a prompt reveals; None when it reveals none."""
    text = prompt.lower()
    counts = {style: sum(_contains(text, sign) for sign in style.signs) for style in STYLES}
    best = max(STYLES, key=lambda style: counts[style])
    return best if counts[best] else None


def enhance(prompt: str, *, cinematic: bool = True, style: bool = True, composed: bool = False) -> Enhanced:
    """Add to a prompt what it does not say yet; whatever would make it too long is left out."""
    found = style_of(prompt)
    vace = _VACE.search(prompt) is not None
    wanted = []
    if style and found is not None:
        wanted.append((f"Words of the style {found.display_name}", found.additions))
    if cinematic:
        wanted.append(("Camera and light", _CINEMATIC))
    if composed or vace:
        wanted.append(("Composition", _COMPOSED))
    text, applied = prompt, []
    for what, words in wanted:
        new = [word for word in words if not _contains(text.lower(), word)]
        longer = ", ".join([text, *new])
        if new and len(longer) <= MAX_PROMPT_CHARS:
            text = longer
            applied.append(f"{what}: {', '.join(new)}")
    return Enhanced(prompt, text, tuple(applied), found, vace)


def judge(prompt: str, limit: int) -> PromptJudgement:
    """Say whether a prompt can be sent, without raising."""
    text = prompt.strip()
    if not text:
        return PromptJudgement(False, "Prompt cannot be empty", ("Describe what is to be seen.",))
    if len(text) < _SHORTEST:
        return PromptJudgement(
            False, f"Prompt must have at least {_SHORTEST} characters", ("Describe what is to be seen.",)
        )
    if len(text) > limit:
        return PromptJudgement(False, f"Prompt may have at most {limit} characters", ("Shorten it.",))
    if not _LETTER.search(text):
        return PromptJudgement(False, "Prompt must contain letters", ("Describe what is to be seen.",))
    suggestions = []
    if len(text.split()) < _FEW_WORDS and text.isascii():
        suggestions.append("Say what moves, where it is, and how the camera sees it.")
    if style_of(text) is None:
        suggestions.append("Name a look, such as a photograph, a film or a painting.")
    return PromptJudgement(True, "Prompt can be used", tuple(suggestions))


def _contains(text: str, sign: str) -> bool:
    """Whether a text has this word, or a word that begins with it."""
    return re.search(rf"(?<!\w){re.escape(sign)}", text) is not None
