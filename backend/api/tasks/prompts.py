"""Routes about a prompt before it is sent: what could be added to it, and whether it can be used.

No request is ever changed by them: a client that likes an answer sends it as its prompt.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from backend.api.http.routing import Routes
from backend.core.requests.prompt_styles import STYLES, Enhanced, enhance, judge
from backend.core.requests.prompts import LEGACY_PROMPT_CHARS, MAX_PROMPT_CHARS, clean_prompt

router = Routes(prefix="/prompt", tags=["generation"])


class PromptOptions(BaseModel):
    """What may be added."""

    apply_cinematic: Annotated[bool, Field(description="Words about camera and light")] = True
    apply_style: Annotated[bool, Field(description="Words of the style that the prompt reveals")] = True
    apply_vace: Annotated[bool, Field(description="Words about composition")] = False


class PromptQuestion(BaseModel):
    """A prompt, and what may be added to it."""

    prompt: str = Field(max_length=MAX_PROMPT_CHARS)
    options: PromptOptions = PromptOptions()

    @model_validator(mode="before")
    @classmethod
    def _older_forms(cls, values: Any) -> Any:
        """Take the whole question inside `prompt`, and the options beside it, as older clients send them."""
        if isinstance(values, dict) and isinstance(values.get("prompt"), dict):
            values = values["prompt"]
        if isinstance(values, dict) and values.get("options") is None:
            beside = {name: values[name] for name in PromptOptions.model_fields if values.get(name) is not None}
            values = {"prompt": values.get("prompt"), "options": beside}
        return values


class PromptAnswer(BaseModel):
    """What the rules found in a prompt."""

    original_prompt: str
    character_count: dict[str, int] = Field(description="Of the original and the new text, and the difference")
    detected_style: str | None = None
    vace_detected: bool = Field(description="Whether the prompt names VACE")


class EnhancedPrompt(PromptAnswer):
    """A prompt with additions; the original is its beginning."""

    enhanced_prompt: str
    enhancements_applied: list[str]


class PromptPreview(PromptAnswer):
    """What a prompt would become."""

    preview_enhanced: str
    suggested_enhancements: list[str]


class PromptVerdict(BaseModel):
    """Whether a prompt can be sent."""

    is_valid: bool
    message: str
    character_count: int
    suggestions: list[str] | None = None


class PromptToJudge(BaseModel):
    """A prompt, whatever it is."""

    prompt: str = Field("", max_length=16_384)


class PromptStyle(BaseModel):
    """A look that the rules know."""

    name: str
    display_name: str
    description: str


class PromptStyles(BaseModel):
    """All of them."""

    styles: list[PromptStyle]
    total_count: int


@router.post("/enhance", summary="Add to a prompt")
def enhance_prompt(question: PromptQuestion) -> EnhancedPrompt:
    """Add words about style, camera and light behind a prompt, where it has none. Nothing is stored or queued."""
    found = _enhanced(question)
    return EnhancedPrompt(
        enhanced_prompt=found.text, enhancements_applied=list(found.applied), **_answer(found, "enhanced")
    )


@router.post("/preview", summary="See what would be added to a prompt")
def preview_prompt(question: PromptQuestion) -> PromptPreview:
    """Show what `enhance` would make of a prompt."""
    found = _enhanced(question)
    return PromptPreview(
        preview_enhanced=found.text, suggested_enhancements=list(found.applied), **_answer(found, "preview")
    )


@router.post("/validate", summary="Whether a prompt can be used")
def validate_prompt(question: PromptToJudge) -> PromptVerdict:
    """Judge a prompt by the rules of the older form, which takes 500 characters; submit takes 2,000."""
    verdict = judge(question.prompt, LEGACY_PROMPT_CHARS)
    return PromptVerdict(
        is_valid=verdict.is_valid,
        message=verdict.message,
        character_count=len(question.prompt.strip()),
        suggestions=list(verdict.suggestions) or None,
    )


@router.get("/styles", summary="The looks that the rules know")
def prompt_styles() -> PromptStyles:
    """List the styles that `enhance` can find in a prompt."""
    shown = [
        PromptStyle(name=style.name, display_name=style.display_name, description=style.description) for style in STYLES
    ]
    return PromptStyles(styles=shown, total_count=len(shown))


def _enhanced(question: PromptQuestion) -> Enhanced:
    options = question.options
    return enhance(
        clean_prompt("prompt", question.prompt),
        cinematic=options.apply_cinematic,
        style=options.apply_style,
        composed=options.apply_vace,
    )


def _answer(found: Enhanced, new: str) -> dict[str, Any]:
    """Return what both answers have; `new` is the name of the new text among the lengths."""
    before, after = len(found.prompt), len(found.text)
    return {
        "original_prompt": found.prompt,
        "character_count": {"original": before, new: after, "difference": after - before},
        "detected_style": None if found.style is None else found.style.name,
        "vace_detected": found.vace,
    }
