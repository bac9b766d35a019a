"""Errors about keys: what a key may not do, or has used up."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from backend.core.errors.base import Category, Severity, WanError
from backend.core.errors.lookups import NotFound
from backend.core.errors.surroundings import Forbidden


class ScopeMissing(Forbidden):
    """This key may not do this."""

    code = "scope_missing"
    suggestions = ("Use a key that has the scope, or ask the operator for one.",)


class KeyNotFound(NotFound):
    """There is no API key with this id."""

    code = "key_not_found"
    suggestions = ("List the keys with `wan22 keys list`.",)


class KeyNameTaken(WanError):
    """A valid API key has this name already."""

    code = "key_name_taken"
    status = 409
    category = Category.INPUT_VALIDATION
    severity: ClassVar[Severity] = Severity.WARNING
    suggestions = ("Choose another name, or revoke that key first.",)


class TooMuch(WanError):
    """This key has to wait."""

    code = "too_much"
    status = 429
    category = Category.INPUT_VALIDATION
    severity: ClassVar[Severity] = Severity.WARNING
    retryable = True
    suggestions = ("Wait for the time in `Retry-After`, then try again.",)

    def __init__(self, message: str | None = None, *, seconds: float = 1.0, **more: Any) -> None:
        super().__init__(message, **more)
        #: How long to wait, in whole seconds, at least one.
        self.retry_after = max(1, math.ceil(seconds))


class RateLimited(TooMuch):
    """Too many requests."""

    code = "rate_limited"


class QuotaExceeded(TooMuch):
    """This key has used up its quota."""

    code = "quota_exceeded"
    suggestions = ("Wait until the quota is renewed, or ask the operator for a larger one.",)
