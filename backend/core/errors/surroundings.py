"""Errors of the machine around the work: database, disk, device, settings, access."""

from __future__ import annotations

from typing import ClassVar

from backend.core.errors.actions import retry
from backend.core.errors.base import Action, Category, Severity, WanError


class StoreFailed(WanError):
    """The data could not be stored."""

    code = "store_failed"
    category = Category.SYSTEM_RESOURCE
    severity: ClassVar[Severity] = Severity.CRITICAL
    retryable = True
    status = 503
    suggestions = ("Try again in a few seconds.",)


class StoreUnavailable(StoreFailed):
    """The database is busy or cannot be reached."""

    code = "store_unavailable"
    usual_actions: ClassVar[tuple[Action, ...]] = (retry(2),)
    status = 503
    suggestions = ("Try again in a few seconds.",)


class DatabaseDamaged(StoreUnavailable):
    """The database is damaged or lost."""

    code = "database_damaged"
    severity = Severity.CRITICAL
    usual_actions = ()
    suggestions = ("Restart the server: it restores the newest intact copy; `wan22 db check` says what there is.",)


class StorageFull(StoreFailed):
    """The disk is full."""

    code = "storage_full"
    status = 507
    suggestions = ("Free some disk space, then try again; queued tasks are kept.",)


class DeviceUnusable(WanError):
    """The requested device cannot be used."""

    code = "device_unusable"
    category = Category.SYSTEM_RESOURCE
    severity = Severity.CRITICAL
    status = 503
    suggestions = ("Set WAN22_DEVICE to auto, and run `wan22 doctor`.",)


class HomeInUse(WanError):
    """Another server already uses this home folder."""

    code = "home_in_use"
    category = Category.SYSTEM_RESOURCE
    severity = Severity.CRITICAL
    suggestions = ("Stop the other server, or set WAN22_HOME to another folder.",)


class UnsafeBind(WanError):
    """The server would be reachable from outside without a key."""

    code = "unsafe_bind"
    category = Category.SYSTEM_RESOURCE
    severity = Severity.CRITICAL
    suggestions = (
        "Keep the default --host 127.0.0.1.",
        "Or make a key first: `wan22 keys create NAME --scope admin`.",
        "Or set WAN22_API_KEY to a long random text.",
    )


class BadSettings(WanError):
    """A setting has a value that cannot be used."""

    code = "bad_settings"
    severity = Severity.CRITICAL
    category = Category.INPUT_VALIDATION
    suggestions = ("Correct the named environment variable or option.",)


class Unauthorized(WanError):
    """This server needs an API key."""

    code = "unauthorized"
    severity = Severity.WARNING
    status = 401
    category = Category.INPUT_VALIDATION
    suggestions = ("Send a key of this server as `Authorization: Bearer <key>`; `wan22 keys create` makes one.",)


class Forbidden(WanError):
    """Requests from this address are not allowed."""

    code = "forbidden"
    severity = Severity.WARNING
    status = 403
    category = Category.INPUT_VALIDATION
    suggestions = ("Open the server under its own address, or add the origin to WAN22_CORS_ORIGINS.",)


class NotReady(WanError):
    """No task can be run now."""

    code = "not_ready"
    status = 503
    category = Category.SYSTEM_RESOURCE
    severity = Severity.CRITICAL
    retryable = True
    suggestions = ("Look at the server's log, or run `wan22 doctor`.",)


class TooManyConnections(WanError):
    """All places for live updates are taken."""

    code = "too_many_connections"
    status = 503
    category = Category.SYSTEM_RESOURCE
    severity = Severity.WARNING
    retryable = True
    suggestions = ("Close another page of this server, or try again in a few seconds.",)
