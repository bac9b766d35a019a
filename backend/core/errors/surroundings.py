"""Errors of the machine around the work: database, disk, device, settings, access."""

from __future__ import annotations

from backend.core.errors.base import WanError


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
