"""The root of the tree of errors, and what every error says.

Each class carries a stable machine code, an HTTP status, a category, a severity, whether trying again can help, a
sentence for the user and at least one next step. Any layer may raise them; `api/http/errors.py` renders them, the
worker records them. docs/troubleshooting.md lists all of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class Category(StrEnum):
    """What an error is about."""

    VRAM_MEMORY = "vram_memory"
    MODEL_LOADING = "model_loading"
    GENERATION_PIPELINE = "generation_pipeline"
    INPUT_VALIDATION = "input_validation"
    SYSTEM_RESOURCE = "system_resource"
    NETWORK = "network"
    LORA = "lora"
    UNKNOWN = "unknown"  # nobody foresaw it


class Severity(StrEnum):
    """How much an error harms, and who has to act."""

    INFO = "info"  # nothing is wrong: somebody stopped the work
    WARNING = "warning"  # the call was refused and nothing is lost; whoever made it corrects it
    ERROR = "error"  # a task or a call failed, and others work
    CRITICAL = "critical"  # nothing can be generated until the operator acts, or a worker process had to end


#: A next step that a client can execute: `{"action": …}` with its values; `errors/actions.py` makes them.
Action = dict[str, Any]


class WanError(Exception):
    """Something inside the server went wrong."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    category: ClassVar[Category] = Category.UNKNOWN
    severity: ClassVar[Severity] = Severity.ERROR
    #: Whether the same request can succeed later without a change.
    retryable: ClassVar[bool] = False
    #: Whether the worker process must end, because no task can run in it any more.
    ends_process: ClassVar[bool] = False
    suggestions: ClassVar[tuple[str, ...]] = ("Search the server's log for the request id.",)
    #: Actions that help in every case; an instance may know better ones.
    usual_actions: ClassVar[tuple[Action, ...]] = ()

    def __init__(
        self,
        message: str | None = None,
        *,
        suggestions: tuple[str, ...] | None = None,
        details: dict[str, Any] | list[Any] | None = None,
        actions: tuple[Action, ...] | None = None,
    ) -> None:
        self.message: str = message or (self.__doc__ or "").strip().splitlines()[0]
        self.next_steps: tuple[str, ...] = suggestions if suggestions is not None else type(self).suggestions
        self.details = details
        self.actions: tuple[Action, ...] = actions if actions is not None else type(self).usual_actions
        super().__init__(self.message)
