"""What becomes of a request: prepared, estimated, submitted."""

from __future__ import annotations

from dataclasses import dataclass

from backend.core.domain import Task
from backend.core.planning.optimizer import Decision
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.models.folder.prompt_length import PromptLength
from backend.services.model_choice import Choice
from backend.services.models.availability import FetchFirst
from backend.services.planning.forecast import Span


@dataclass(frozen=True, slots=True)
class Submission:
    """Tasks committed to disk."""

    tasks: tuple[Task, ...]  #: one per variation
    model: str
    reasons: tuple[str, ...]  #: why this model was chosen; empty when the request named it
    queue_position: int | None  #: of the first task; 1 = next; None = not waiting
    until_done: Span | None  #: of the first task; None if unknown
    fetch: FetchFirst | None = None  #: what must be downloaded before the first task can run

    @property
    def task(self) -> Task:
        """The first task."""
        return self.tasks[0]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A fully resolved request, before anything is queued."""

    requests: tuple[GenerationRequest, ...]  #: one per variation
    choice: Choice
    notes: tuple[str, ...]  #: one sentence per value adjusted to fit the model
    draft: RequestDraft  #: the request as sent; of a redecode what stands for it
    unread: tuple[str, ...] = ()  #: those of the notes that say what the model does not read of the prompts


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a request, without queuing it."""

    prepared: Prepared
    decision: Decision
    available: bool  #: whether the model's files are installed
    fits: bool  #: whether `submit` takes it without `force`; also where nothing is known about the machine or the files
    fetch: FetchFirst | None = None  #: what a task would download first
    length: PromptLength | None = None  #: of the prompt, where the model's tokenizer is here
