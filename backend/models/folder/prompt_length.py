"""How much of a prompt a model reads, counted in tokens by the model's own tokenizer.

Reads `tokenizer/tokenizer.json` with the library that the text encoder's tokenizer uses, without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE: Final = Path("tokenizer") / "tokenizer.json"
_SHOWN_CHARS: Final = 40
#: Tokens that may be added to those of the text: the end, and a blank at the start.
_MARKS: Final = 2


@dataclass(frozen=True, slots=True)
class PromptLength:
    """A prompt against what the model reads of it."""

    tokens: int  #: of the whole prompt, with the end mark
    limit: int  #: tokens that the model reads
    unread: str  #: the text that is cut off; empty when everything is read

    def note(self, field: str) -> str | None:
        """Say what is cut off; None when nothing is."""
        if self.tokens <= self.limit:
            return None
        start = self.unread[:_SHOWN_CHARS] + ("…" if len(self.unread) > _SHOWN_CHARS else "")
        return f"{field} has {self.tokens} tokens and the model reads {self.limit}: it is cut off before “{start}”"


def surely_read(text: str, limit: int) -> bool:
    """Whether a text is so short that no tokenizer needs to count it: a token stands for a byte at least."""
    return len(text.encode()) + _MARKS <= limit


def measure_prompt(folder: Path, text: str, limit: int) -> PromptLength | None:
    """Count the tokens of a prompt; None where the folder has no readable tokenizer.

    Args:
        folder: the model's folder.
        text: the prompt.
        limit: tokens that are read, with the end mark (`max_sequence_length`).
    """
    path = folder / TOKENIZER_FILE
    try:
        status = path.stat()
        tokenizer = _tokenizer(path, status.st_size, status.st_mtime_ns)
    except Exception:  # the library raises plain Exception for a file that it cannot read
        return None
    marks = tokenizer.num_special_tokens_to_add(is_pair=False)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    total, kept = len(encoding.ids) + marks, max(0, limit - marks)
    unread = text[encoding.offsets[kept][0] :] if total > limit else ""
    return PromptLength(total, limit, unread.strip())


@lru_cache(maxsize=2)  # UMT5's file is 16 MB
def _tokenizer(path: Path, _size: int, _changed: int) -> Tokenizer:
    from tokenizers import Tokenizer  # takes a moment, and many requests need none

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
