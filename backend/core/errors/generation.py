"""Errors of an attempt at a video."""

from __future__ import annotations

from typing import Any, ClassVar

from backend.core.errors.actions import resubmit
from backend.core.errors.base import Action, Category, WanError


class GenerationFailed(WanError):
    """The video could not be generated."""

    code = "generation_failed"
    retryable: ClassVar[bool] = True
    category: ClassVar[Category] = Category.GENERATION_PIPELINE
    suggestions: ClassVar[tuple[str, ...]] = ("Try again; if it fails again, the server's log has the details.",)


class NonFiniteLatents(GenerationFailed):
    """The model produced values that are not numbers, so the run was stopped."""

    code = "non_finite_latents"
    retryable = False
    suggestions = ("Check the model's files", "Try another precision or a lower guidance scale")


class OutOfMemory(GenerationFailed):
    """The device ran out of memory."""

    code = "out_of_memory"
    retryable = False
    category = Category.VRAM_MEMORY
    suggestions = ("Choose a smaller size or fewer frames.",)

    def __init__(
        self,
        message: str | None = None,
        *,
        suggestions: tuple[str, ...] | None = None,
        details: dict[str, Any] | list[Any] | None = None,
        actions: tuple[Action, ...] | None = None,
        use: str | None = None,
        host: bool = False,
    ) -> None:
        """`use` is the purpose of the memory (`memory_ladder.MemoryUse`); `host` means the host's memory ran out."""
        super().__init__(message, suggestions=suggestions, details=details, actions=actions)
        self.use = use
        self.host = host


class LoraNotApplied(GenerationFailed):
    """A LoRA could not be applied to the model."""

    code = "lora_not_applied"
    retryable = False
    usual_actions = (resubmit(on_lora_failure="skip"),)
    category = Category.LORA
    suggestions = ("Leave the LoRA out, or set on_lora_failure to `skip`.",)


class StateMismatch(GenerationFailed):
    """The saved state of this run belongs to something else."""

    code = "job_state_mismatch"
    usual_actions = (resubmit(),)
    suggestions = ("Run the task again from its first step.",)


class EncodingFailed(GenerationFailed):
    """The frames could not be written as a video."""

    code = "encoding_failed"
    suggestions = ("Check the free space of the outputs folder.",)


class TaskUnreadable(GenerationFailed):
    """What this task asks for cannot be read from the database."""

    code = "task_unreadable"
    status = 410
    suggestions = (
        "Send the request again.",
        "If a newer version of wan22 queued it, install that version again and retry the task.",
    )


class WorkerLost(GenerationFailed):
    """The worker process died on attempts at this video that made no progress."""

    code = "worker_lost"
    retryable = False
    suggestions = ("Choose a smaller size or fewer frames, then try again.", "Check the server's log.")


class WorkerStalled(WorkerLost):
    """No attempt at this video came any further."""

    code = "worker_stalled"
    suggestions = (
        "Check the server's log: it has the stacks of all threads.",
        "Where steps are really that slow, set WAN22_STALL_SECONDS to a longer time.",
    )


class FileUnusable(GenerationFailed):
    """A file or folder could not be read or written."""

    code = "file_unusable"
    retryable = False
    category = Category.SYSTEM_RESOURCE
    suggestions = ("Check the disk, and the owner and rights of the home folder; the server's log names the file.",)


class UnexpectedFailure(GenerationFailed):
    """The video could not be generated, for a reason that nobody foresaw."""

    code = "unexpected_failure"
    category = Category.UNKNOWN
    suggestions = ("Try again; if it fails again, report it with the server's log.",)
    usual_actions = (resubmit(),)
