"""Errors of a model's files, and of the hub that they come from."""

from __future__ import annotations

from typing import ClassVar

from backend.core.errors.actions import retry
from backend.core.errors.base import Category, WanError


class ModelUnavailable(WanError):
    """The model's files are not on this machine."""

    code = "model_not_available"
    status = 409
    category = Category.MODEL_LOADING
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
    category = Category.NETWORK
    retryable = True
    usual_actions = (retry(60),)
    status = 503
    suggestions = ("Check the network and HF_ENDPOINT, then try again: the download resumes where it stopped.",)


class HubRateLimited(ModelUnavailable):
    """The model hub limits the number of requests."""

    code = "hub_rate_limited"
    category = Category.NETWORK
    retryable = True
    usual_actions = (retry(300),)
    status = 503
    suggestions = ("Wait a few minutes, then try again: the download resumes where it stopped.",)


class ModelGated(ModelUnavailable):
    """The model hub provides this model only to authorized accounts."""

    code = "model_gated"
    category = Category.NETWORK
    status = 403
    suggestions = (
        "Accept the licence on the model's page, create an access token, and set HF_TOKEN to it.",
        "Check the name of the repository: the hub gives the same answer for one that does not exist.",
    )


class RepositoryNotFound(ModelUnavailable):
    """The model hub has no such repository or revision."""

    code = "repository_not_found"
    category = Category.NETWORK
    status = 404
    suggestions = ("Check HF_ENDPOINT and the revision.",)


class UnsafeRepository(ModelUnavailable):
    """The model's repository lists a file that is not safe to download."""

    code = "unsafe_repository"
    category = Category.NETWORK
    status = 502
    suggestions = ("Check HF_ENDPOINT: this is not what the model's authors published.",)


class ModelDamaged(WanError):
    """The model's files are incomplete or damaged."""

    code = "model_damaged"
    category = Category.MODEL_LOADING
    suggestions = ("Install the model again.",)
