"""All errors of the product, in one tree.

Each class carries a stable machine code, an HTTP status, a category, a sentence for the user and at
least one next step. Any layer may raise them; `api/http/errors.py` renders them, the worker records them.

    WanError                         500 internal_error
    ├── InvalidRequest               422 invalid_request
    │   ├── UnknownModel             422 unknown_model
    │   ├── ImageNotAccepted         422 image_not_accepted
    │   ├── ImageRequired            422 image_required
    │   ├── InvalidImage             422 invalid_image
    │   ├── LoraNotFound             422 lora_not_found
    │   ├── LoraInvalid              422 lora_invalid
    │   │   └── LoraUnsupported      422 lora_unsupported
    │   ├── LoraIncompatible         422 lora_incompatible
    │   ├── DoesNotFit               422 does_not_fit
    │   ├── ModelMismatch            422 model_mismatch
    │   ├── MalformedBody            400 malformed_body
    │   ├── InvalidFilter            400 invalid_filter
    │   ├── BodyTooLarge             413 body_too_large
    │   └── UnsupportedEncoding      415 unsupported_encoding
    ├── NotFound                     404 not_found
    │   ├── TaskNotFound             404 task_not_found
    │   ├── OutputNotFound           404 output_not_found
    │   ├── OutputFileMissing        404 output_file_missing
    │   ├── InputMissing             404 input_not_found
    │   ├── LatentsNotKept           404 latents_not_kept
    │   ├── LoraMissing              404 lora_missing
    │   ├── WorkerNotFound           404 worker_not_found
    │   ├── DownloadNotFound         404 download_not_found
    │   └── PresetNotFound           404 preset_not_found
    ├── StateConflict                409 state_conflict
    │   ├── IdempotencyConflict      409 idempotency_conflict
    │   ├── DownloadInUse            409 download_in_use
    │   ├── LoraExists               409 lora_exists
    │   └── PresetDoesNotFit         409 preset_does_not_fit
    ├── Unauthorized                 401 unauthorized
    ├── Forbidden                    403 forbidden
    ├── ModelUnavailable             409 model_not_available
    │   ├── ModelUnsupported         409 model_not_supported
    │   ├── HubUnreachable           503 hub_unreachable
    │   ├── HubRateLimited           503 hub_rate_limited
    │   ├── ModelGated               403 model_gated
    │   ├── RepositoryNotFound       404 repository_not_found
    │   └── UnsafeRepository         502 unsafe_repository
    ├── ModelDamaged                 500 model_damaged
    ├── StoreFailed                  503 store_failed
    │   ├── StoreUnavailable         503 store_unavailable
    │   └── StorageFull              507 storage_full
    ├── GenerationFailed             500 generation_failed
    │   ├── NonFiniteLatents         500 non_finite_latents
    │   ├── OutOfMemory              500 out_of_memory
    │   ├── LoraNotApplied           500 lora_not_applied
    │   ├── StateMismatch            500 job_state_mismatch
    │   ├── EncodingFailed           500 encoding_failed
    │   └── WorkerLost               500 worker_lost
    ├── DeviceUnusable               503 device_unusable
    ├── HomeInUse                    500 home_in_use
    ├── UnsafeBind                   500 unsafe_bind
    ├── BadSettings                  500 bad_settings
    └── Interrupted                  (control flow; never reaches a client)
        ├── TaskCancelled
        ├── TaskPaused
        ├── TaskHeldUp
        ├── WorkerStopping
        ├── DownloadStopped
        ├── DownloadPaused
        └── LeaseLost
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


class InvalidRequest(WanError):
    """The request is not valid for this model."""

    code = "invalid_request"
    status = 422
    category = "input_validation"
    suggestions = ("Correct the named field and send the request again; nothing was queued.",)


class UnknownModel(InvalidRequest):
    """No model has this name."""

    code = "unknown_model"
    suggestions = ("Use one of the listed names, or `auto`.",)


class ImageNotAccepted(InvalidRequest):
    """This model generates video from text alone and accepts no image."""

    code = "image_not_accepted"
    suggestions = ("Leave the image out, or choose an I2V or TI2V model.",)


class ImageRequired(InvalidRequest):
    """This model needs a start image."""

    code = "image_required"
    suggestions = ("Add an `image` file (JPEG, PNG or WebP), or choose a T2V model.",)


class InvalidImage(InvalidRequest):
    """The image cannot be used."""

    code = "invalid_image"
    suggestions = (
        "Send a JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF with at least 64 pixels a side and at most 10 MiB.",
    )


class LoraNotFound(InvalidRequest):
    """No LoRA with this name is installed.

    Raised for a name in a body; an unknown id in a path raises `LoraMissing`.
    """

    code = "lora_not_found"
    suggestions = ("List the installed ones with GET /api/v1/lora, or send the request without a LoRA.",)


class LoraInvalid(InvalidRequest):
    """The file is not a readable LoRA."""

    code = "lora_invalid"
    suggestions = ("Download the file again; only complete safetensors files are read.",)


class LoraUnsupported(LoraInvalid):
    """The file is intact, but holds nothing that can be applied to a Wan model."""

    code = "lora_unsupported"
    suggestions = ("Choose a LoRA for a Wan model; the file itself is not damaged.",)


class LoraIncompatible(InvalidRequest):
    """The LoRA was trained for another model."""

    code = "lora_incompatible"
    suggestions = ("Choose a LoRA for this model, or the model that it was trained for.",)


class DoesNotFit(InvalidRequest):
    """The request does not fit on this machine."""

    code = "does_not_fit"
    category = "vram_memory"
    suggestions = ("Choose a smaller size, fewer frames or a smaller model; nothing was queued.",)


class ModelMismatch(InvalidRequest):
    """The files do not belong to a model of this kind."""

    code = "model_mismatch"
    category = "model_loading"
    suggestions = ("Name the base that the files belong to; nothing was changed.",)


class MalformedBody(InvalidRequest):
    """The body could not be read."""

    code = "malformed_body"
    status = 400
    suggestions = ("Send JSON (application/json) or a form (multipart/form-data).",)


class InvalidFilter(InvalidRequest):
    """The list cannot be filtered this way."""

    code = "invalid_filter"
    status = 400
    suggestions = ("Use a task status: pending, processing, paused, completed, failed or cancelled.",)


class BodyTooLarge(InvalidRequest):
    """The request is larger than the server accepts."""

    code = "body_too_large"
    status = 413
    suggestions = ("Send a smaller file; images may have at most 10 MiB.",)


class UnsupportedEncoding(InvalidRequest):
    """The body is compressed, which this server does not read."""

    code = "unsupported_encoding"
    status = 415
    suggestions = ("Send the body without Content-Encoding.",)


class NotFound(WanError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404
    category = "input_validation"
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
    suggestions = ("List the LoRAs with GET /api/v1/lora.",)


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


class StateConflict(WanError):
    """The task is in a state that does not allow this."""

    code = "state_conflict"
    status = 409
    category = "input_validation"
    suggestions = ("Check the task's status and choose an action that it allows.",)


class IdempotencyConflict(StateConflict):
    """This idempotency key was used before, for another request."""

    code = "idempotency_conflict"
    suggestions = ("Use a new key for a new request.",)


class DownloadInUse(StateConflict):
    """Another task or process needs or runs this download."""

    code = "download_in_use"
    suggestions = ("GET /api/v1/models/download/progress lists the actions that each download allows.",)


class LoraExists(StateConflict):
    """A LoRA with this name is already installed, with different content."""

    code = "lora_exists"
    suggestions = ("Rename the file, or delete the installed LoRA first.",)


class PresetDoesNotFit(StateConflict):
    """With this preset, no model can run on this machine."""

    code = "preset_does_not_fit"
    category = "vram_memory"
    suggestions = ("Choose a preset that GET /api/v1/optimization/presets marks as compatible; nothing was changed.",)


class Unauthorized(WanError):
    """This server needs an API key."""

    code = "unauthorized"
    status = 401
    category = "input_validation"
    suggestions = ("Send the key of this server as `Authorization: Bearer <key>`.",)


class Forbidden(WanError):
    """Requests from this address are not allowed."""

    code = "forbidden"
    status = 403
    category = "input_validation"
    suggestions = ("Open the server under its own address, or add the origin to WAN22_CORS_ORIGINS.",)


class ModelUnavailable(WanError):
    """The model's files are not on this machine."""

    code = "model_not_available"
    status = 409
    category = "model_loading"
    suggestions: ClassVar[tuple[str, ...]] = ("Use `auto`, which picks an available model.",)


class ModelUnsupported(ModelUnavailable):
    """The model's files are intact, but in a form that this version does not read."""

    code = "model_not_supported"
    suggestions = (
        "Use a version in bf16, fp16, fp32 or fp8 (one scale per matrix or row), or a GGUF file from Q2_K to Q8_0.",
    )


class HubUnreachable(ModelUnavailable):
    """The model hub cannot be reached."""

    code = "hub_unreachable"
    status = 503
    suggestions = ("Check the network and HF_ENDPOINT, then try again: the download resumes where it stopped.",)


class HubRateLimited(ModelUnavailable):
    """The model hub limits the number of requests."""

    code = "hub_rate_limited"
    status = 503
    suggestions = ("Wait a few minutes, then try again: the download resumes where it stopped.",)


class ModelGated(ModelUnavailable):
    """The model hub provides this model only to authorized accounts."""

    code = "model_gated"
    status = 403
    suggestions = (
        "Accept the licence on the model's page, create an access token, and set HF_TOKEN to it.",
        "Check the name of the repository: the hub gives the same answer for one that does not exist.",
    )


class RepositoryNotFound(ModelUnavailable):
    """The model hub has no such repository or revision."""

    code = "repository_not_found"
    status = 404
    suggestions = ("Check HF_ENDPOINT and the revision.",)


class UnsafeRepository(ModelUnavailable):
    """The model's repository lists a file that is not safe to download."""

    code = "unsafe_repository"
    status = 502
    suggestions = ("Check HF_ENDPOINT: this is not what the model's authors published.",)


class ModelDamaged(WanError):
    """The model's files are incomplete or damaged."""

    code = "model_damaged"
    category = "model_loading"
    suggestions = ("Install the model again.",)


class StoreFailed(WanError):
    """The data could not be stored."""

    code = "store_failed"
    status = 503
    suggestions = ("Try again in a few seconds.",)


class StoreUnavailable(StoreFailed):
    """The database is busy or cannot be reached."""

    code = "store_unavailable"
    status = 503
    suggestions = ("Try again in a few seconds.",)


class StorageFull(StoreFailed):
    """The disk is full."""

    code = "storage_full"
    status = 507
    suggestions = ("Free some disk space, then try again; queued tasks are kept.",)


class GenerationFailed(WanError):
    """The video could not be generated."""

    code = "generation_failed"
    category = "generation_pipeline"
    suggestions: ClassVar[tuple[str, ...]] = ("Try again; if it fails again, the server's log has the details.",)


class NonFiniteLatents(GenerationFailed):
    """The model produced values that are not numbers, so the run was stopped."""

    code = "non_finite_latents"
    suggestions = ("Check the model's files", "Try another precision or a lower guidance scale")


class OutOfMemory(GenerationFailed):
    """The device ran out of memory."""

    code = "out_of_memory"
    category = "vram_memory"
    suggestions = ("Choose a smaller size or fewer frames.",)

    def __init__(
        self,
        message: str | None = None,
        *,
        suggestions: tuple[str, ...] | None = None,
        use: str | None = None,
        host: bool = False,
    ) -> None:
        """`use` is the purpose of the memory (`memory_ladder.MemoryUse`); `host` means the host's memory ran out."""
        super().__init__(message, suggestions=suggestions)
        self.use = use
        self.host = host


class LoraNotApplied(GenerationFailed):
    """A LoRA could not be applied to the model."""

    code = "lora_not_applied"
    category = "model_loading"
    suggestions = ("Leave the LoRA out, or set on_lora_failure to `skip`.",)


class StateMismatch(GenerationFailed):
    """The saved state of this run belongs to something else."""

    code = "job_state_mismatch"
    suggestions = ("Run the task again from its first step.",)


class EncodingFailed(GenerationFailed):
    """The frames could not be written as a video."""

    code = "encoding_failed"
    suggestions = ("Check the free space of the outputs folder.",)


class WorkerLost(GenerationFailed):
    """The worker process died on every attempt at this video."""

    code = "worker_lost"
    suggestions = ("Choose a smaller size or fewer frames, then try again.", "Check the server's log.")


class DeviceUnusable(WanError):
    """The requested device cannot be used."""

    code = "device_unusable"
    status = 503
    suggestions = ("Set WAN22_DEVICE to auto, and run `wan22 doctor`.",)


class HomeInUse(WanError):
    """Another server already uses this home folder."""

    code = "home_in_use"
    suggestions = ("Stop the other server, or set WAN22_HOME to another folder.",)


class UnsafeBind(WanError):
    """The server would be reachable from outside without a key."""

    code = "unsafe_bind"
    suggestions = ("Keep the default --host 127.0.0.1, or set WAN22_API_KEY to a long random text.",)


class BadSettings(WanError):
    """A setting has a value that cannot be used."""

    code = "bad_settings"
    category = "input_validation"
    suggestions = ("Correct the named environment variable or option.",)


class Interrupted(WanError):
    """The attempt was interrupted."""


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
