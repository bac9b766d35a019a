"""Errors of requests that are refused before anything is queued."""

from __future__ import annotations

from typing import ClassVar, Final

from backend.core.errors.base import Category, Severity, WanError


class InvalidRequest(WanError):
    """The request is not valid for this model."""

    code = "invalid_request"
    severity: ClassVar[Severity] = Severity.WARNING
    status = 422
    category = Category.INPUT_VALIDATION
    suggestions = ("Correct the named field and send the request again; nothing was queued.",)


class UnknownModel(InvalidRequest):
    """No model has this name."""

    code = "unknown_model"
    suggestions = ("Use one of the listed names, or `auto`.",)


class UnknownField(InvalidRequest):
    """The request has a field that this server does not know."""

    code = "unknown_field"
    suggestions = ("Leave the field out; docs/openai.md lists those that are understood.",)


class NotOffered(InvalidRequest):
    """This server does not offer what was asked for."""

    code = "not_offered"
    suggestions = ("Leave it out; docs/openai.md says what is offered.",)


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
    category = Category.LORA
    suggestions = ("List the installed ones with GET /api/v1/lora, or send the request without a LoRA.",)


class LoraInvalid(InvalidRequest):
    """The file is not a readable LoRA."""

    code = "lora_invalid"
    category = Category.LORA
    suggestions = ("Download the file again; only complete safetensors files are read.",)


class LoraUnsupported(LoraInvalid):
    """The file is intact, but holds nothing that can be applied to a Wan model."""

    code = "lora_unsupported"
    suggestions = ("Choose a LoRA for a Wan model; the file itself is not damaged.",)


class LoraIncompatible(InvalidRequest):
    """The LoRA was trained for another model."""

    code = "lora_incompatible"
    category = Category.LORA
    suggestions = ("Choose a LoRA for this model, or the model that it was trained for.",)


class ClipRefused(InvalidRequest):
    """The file is no clip that is read here."""

    code = "clip_refused"
    suggestions = ("Send an MP4 with H.264, H.265, AV1 or VP9; `ffmpeg -i FILE -c:v libx264 clip.mp4` writes one.",)


class DoesNotFit(InvalidRequest):
    """The request does not fit on this machine."""

    code = "does_not_fit"
    category = Category.VRAM_MEMORY
    suggestions = ("Choose a smaller size, fewer frames or a smaller model; nothing was queued.",)


class ModelMismatch(InvalidRequest):
    """The files do not belong to a model of this kind."""

    code = "model_mismatch"
    category = Category.MODEL_LOADING
    suggestions = ("Name the base that the files belong to; nothing was changed.",)


class UrlNotAllowed(InvalidRequest):
    """This server may not call that address."""

    code = "url_not_allowed"
    suggestions = (
        "Ask the operator to name the host in WAN22_OUTBOUND_HOSTS, and its network in WAN22_OUTBOUND_NETWORKS when it "
        "is a private one.",
    )


#: The sentence about a body that is not JSON, which clients of the earlier application compare.
INVALID_JSON: Final = "Invalid JSON request"


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


class MethodNotAllowed(InvalidRequest):
    """This address does not take calls of this kind."""

    code = "method_not_allowed"
    status = 405
    suggestions = ("Use a method that the header `Allow` names.",)


class UnknownRecovery(InvalidRequest):
    """There is no such failure or recovery action."""

    code = "unknown_recovery"
    status = 400
    suggestions = ("GET /api/v1/recovery/actions lists both.",)


class MalformedRange(InvalidRequest):
    """The part of the file that was asked for cannot be read."""

    code = "malformed_range"
    status = 400
    suggestions = ("Ask for a part inside the file, or leave the Range header out.",)


class RangeNotSatisfiable(InvalidRequest):
    """This part of the file does not exist."""

    code = "range_not_satisfiable"
    status = 416
    suggestions = ("Ask for a part inside the file, or leave the Range header out.",)
