"""Errors about things that do not exist, or whose state does not allow what was asked."""

from __future__ import annotations

from typing import ClassVar

from backend.core.errors.actions import retry
from backend.core.errors.base import Action, Category, Severity, WanError


class NotFound(WanError):
    """There is nothing at this address."""

    code = "not_found"
    severity: ClassVar[Severity] = Severity.WARNING
    status = 404
    category = Category.INPUT_VALIDATION
    suggestions = ("Check the address; the API is described at /docs.",)


class TaskNotFound(NotFound):
    """Task not found"""

    code = "task_not_found"
    suggestions = ("List the tasks with GET /api/v1/queue.",)


class OutputNotFound(NotFound):
    """Video not found"""

    code = "output_not_found"
    suggestions = ("List the videos with GET /api/v1/outputs.",)


class OutputFileMissing(NotFound):
    """Video file not found"""

    code = "output_file_missing"
    suggestions = ("The file was moved or deleted outside the server; run the same request and seed again.",)


class VideoNotFound(NotFound):
    """There is no video with this id"""

    code = "video_not_found"
    suggestions = ("List the videos with GET /v1/videos.",)


class VideoNotReady(NotFound):
    """The video is not finished"""

    code = "video_not_ready"
    suggestions = ("Ask for the state of the video until it is `completed`.",)


class BoardNotFound(NotFound):
    """There is no board with this id"""

    code = "board_not_found"
    suggestions = ("List the boards with GET /api/v1/boards.",)


class InputMissing(NotFound):
    """The image is no longer on this server"""

    code = "input_not_found"
    suggestions = ("Send the image itself again.",)


class LatentsNotKept(NotFound):
    """The latents of this video were not kept"""

    code = "latents_not_kept"
    suggestions = ("Generate it again with `keep_latents`; the same seed gives the same clip.",)


class LoraMissing(NotFound):
    """There is no LoRA with this id"""

    code = "lora_missing"
    category = Category.LORA
    suggestions = ("List the LoRAs with GET /api/v1/lora.",)


class DeliveryNotFound(NotFound):
    """There is no message to a webhook with this id"""

    code = "delivery_not_found"
    suggestions = ("List them with GET /api/v1/webhooks/deliveries.",)


class WorkerNotFound(NotFound):
    """No worker has such a device"""

    code = "worker_not_found"
    suggestions = ("List the workers with `wan22 worker list`.",)


class DownloadNotFound(NotFound):
    """No download of this model was requested."""

    code = "download_not_found"
    suggestions = ("Start it with POST /api/v1/models/download.",)


class PresetNotFound(NotFound):
    """There is no optimization preset with this id."""

    code = "preset_not_found"
    suggestions = ("List them with GET /api/v1/optimization/presets.",)


class SavedPresetNotFound(NotFound):
    """There is no preset with this id"""

    code = "saved_preset_not_found"
    suggestions = ("List the presets with GET /api/v1/presets.",)


class PromptNotFound(NotFound):
    """This prompt is not in the history"""

    code = "prompt_not_found"
    suggestions = ("List the prompts with GET /api/v1/prompts/history.",)


class StateConflict(WanError):
    """The task is in a state that does not allow this."""

    code = "state_conflict"
    severity: ClassVar[Severity] = Severity.WARNING
    status = 409
    category = Category.INPUT_VALIDATION
    suggestions = ("Check the task's status and choose an action that it allows.",)


class BoardExists(StateConflict):
    """There is a board with this name."""

    code = "board_exists"
    suggestions = ("Choose another name, or use that board.",)


class SavedPresetExists(StateConflict):
    """There is a preset with this name."""

    code = "saved_preset_exists"
    suggestions = ("Choose another name, or change that preset.",)


class IdempotencyConflict(StateConflict):
    """This idempotency key was used before, for another request."""

    code = "idempotency_conflict"
    suggestions = ("Use a new key for a new request.",)


class IdempotencyInProgress(StateConflict):
    """The first call with this idempotency key has not ended."""

    code = "idempotency_in_progress"
    retryable = True
    usual_actions: ClassVar[tuple[Action, ...]] = (retry(2),)
    suggestions = ("Repeat the call with the same key after a moment: it then gets the answer of the first one.",)


class VideoBeingCancelled(StateConflict):
    """The video is being made and stops at its next step; then it can be deleted."""

    code = "video_being_cancelled"
    retryable = True
    suggestions = ("Send the same request again in a few seconds.",)


class DownloadInUse(StateConflict):
    """Another task or process needs or runs this download."""

    code = "download_in_use"
    suggestions = ("GET /api/v1/models/download/progress lists the actions that each download allows.",)


class LoraExists(StateConflict):
    """A LoRA with this name is already installed, with different content."""

    code = "lora_exists"
    category = Category.LORA
    suggestions = ("Rename the file, or delete the installed LoRA first.",)


class PresetDoesNotFit(StateConflict):
    """With this preset, no model can run on this machine."""

    code = "preset_does_not_fit"
    category = Category.VRAM_MEMORY
    suggestions = ("Choose a preset that GET /api/v1/optimization/presets marks as compatible; nothing was changed.",)
