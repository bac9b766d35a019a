"""Why an attempt or a download stops although nothing went wrong: control flow, none of it reaches a client."""

from __future__ import annotations

from backend.core.errors.base import Category, Severity, WanError


class Interrupted(WanError):
    """The attempt was interrupted."""

    category = Category.GENERATION_PIPELINE
    severity = Severity.INFO


class TaskCancelled(Interrupted):
    """The user cancelled the task."""


class TaskPaused(Interrupted):
    """The user paused the task."""


class TaskHeldUp(Interrupted):
    """The task has to wait, because its worker does."""


class WorkerStopping(Interrupted):
    """The operator is stopping this worker."""


class DownloadStopped(Interrupted):
    """The download was stopped; what has arrived is kept."""

    suggestions = ("Start it again: it resumes where it stopped.",)


class DownloadPaused(Interrupted):
    """The download of the model that the task needs was paused."""

    suggestions = ("Resume the download, or cancel the task.",)


class LeaseLost(Interrupted):
    """Another worker owns this task now; everything written by this attempt is void."""
