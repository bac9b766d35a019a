"""The root of the tree of errors, and what every error says.

Each class carries a stable machine code, an HTTP status, a category, a sentence for the user and at least one next
step. Any layer may raise them; `api/http/errors.py` renders them, the worker records them. docs/troubleshooting.md
lists all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WanError(Exception):
    """Something inside the server went wrong."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    #: One of vram_memory, model_loading, generation_pipeline, input_validation, system_resource.
    category: ClassVar[str] = "system_resource"
    suggestions: ClassVar[tuple[str, ...]] = ("Search the server's log for the request id.",)

    def __init__(
        self,
        message: str | None = None,
        *,
        suggestions: tuple[str, ...] | None = None,
        details: dict[str, Any] | list[Any] | None = None,
    ) -> None:
        self.message: str = message or (self.__doc__ or "").strip().splitlines()[0]
        self.next_steps: tuple[str, ...] = suggestions if suggestions is not None else type(self).suggestions
        self.details = details
        super().__init__(self.message)
