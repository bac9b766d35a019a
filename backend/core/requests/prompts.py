"""What a prompt may be: its length and characters, and the syntax of other programs, which is read as plain text.

Counting tokens needs a model's tokenizer (`models.folder.prompt_length`). Pure text; knows no models.
"""

from __future__ import annotations

import re
from typing import Final

from backend.core.errors.requests import InvalidRequest

#: Longest prompt and negative prompt, in characters; what a model reads of them is limited in tokens.
MAX_PROMPT_CHARS: Final = 2000
#: Longest prompt on the paths of the earlier application, whose form has this limit.
LEGACY_PROMPT_CHARS: Final = 500
#: Most tokens that Wan's transformers read of a prompt.
MAX_PROMPT_TOKENS: Final = 512

#: Syntax of ComfyUI and A1111, which Wan's text encoder does not know. Brackets alone are ordinary punctuation.
_FOREIGN: Final = {
    "a weight": re.compile(r"\([^()]*[^\W\d][^()]*:\s*[+-]?\d+(?:\.\d+)?\s*\)|\({2,}[^()]+\){2,}"),
    "a wildcard": re.compile(r"__[\w/*-]+__|\{[^{}]*\|[^{}]*\}"),
    "a LoRA tag": re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE),
    "a scheduled word": re.compile(r"\[[^\[\]]*:[^\[\]]*:[^\[\]]*\]|\bBREAK\b"),
}


def clean_prompt(field: str, text: str, limit: int = MAX_PROMPT_CHARS) -> str:
    """Return a prompt without surrounding blanks.

    Raises:
        InvalidRequest: it is a prompt and empty, too long, or contains control characters.
    """
    text = text.strip()
    if field == "prompt" and not text:
        raise InvalidRequest(f"{field.capitalize()} cannot be empty", details={"field": field})
    if len(text) > limit:
        raise InvalidRequest(
            f"{field} may have at most {limit} characters; this one has {len(text)}", details={"field": field}
        )
    # PostgreSQL cannot store NUL, JSON cannot carry a lone surrogate, and no encoder knows either.
    if any((ord(c) < 32 and c not in "\n\t\r") or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise InvalidRequest(f"{field} contains control characters", details={"field": field})
    return text


def syntax_notes(prompt: str) -> tuple[str, ...]:
    """Return a sentence about syntax of other programs in a prompt: it is sent to the model as plain text."""
    found = {kind: match[0] for kind, pattern in _FOREIGN.items() if (match := pattern.search(prompt))}
    if not found:
        return ()
    words = ", ".join(f"{kind} (`{text}`)" for kind, text in found.items())
    return (f"the prompt seems to contain {words}: it is read as plain text and has no other effect",)
