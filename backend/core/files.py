"""Atomic, durable file writes, and the one reader of JSON.

A file is written next to its target and renamed over it: after a crash it has its old or its new content, never a
mix. All forms of "disk full" become `StorageFull`. JSON is read as strictly as it is defined, in any encoding.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from backend.core.errors.surroundings import StorageFull

#: Suffix of a file that is being written.
PART_SUFFIX: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Answers of file systems that cannot sync a folder; they order renames in some other way.
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF})


@contextmanager
def storage_errors(message: str | None = None) -> Iterator[None]:
    """Turn an OSError about a full disk or an exhausted quota into `StorageFull`, with `message` if given."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(message) from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a fresh path next to `path` to write to; when the block succeeds, that file replaces `path`.

    The writer flushes the content to disk where that matters. With `durable`, the rename is on disk, too, when this
    returns. When the block fails, the old file stays as it was.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def write_bytes(
    path: Path, content: bytes, *, mode: int | None = None, check: Callable[[], None] = lambda: None
) -> None:
    """Write a file atomically and durably.

    Args:
        path: where it goes.
        content: all of it.
        mode: its permissions; None leaves them to the system.
        check: called right before the file is renamed into its place; what it raises leaves the old file there.
    """
    with replacing(path) as part:
        with part.open("xb") as file:
            if mode is not None:
                part.chmod(mode)  # before there is anything to read
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, atomically and durably."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def read_json(path: Path, *, finite: bool = True) -> Any:
    """Return the value in a JSON file; `finite` as in `parse_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse_json`.
    """
    return parse_json(path.read_bytes(), finite=finite)


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Return a JSON value from text in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    With `finite` off, NaN and infinities are accepted: for files whose values are judged one by one.

    Raises:
        ValueError: it is not JSON. The message completes the sentence "The file ..." and, where there is one, names
            the place. Refused as well: NaN and infinities, numbers out of range, half of a surrogate pair, and nesting
            that exhausts the stack.
    """
    text = decode_json(content)
    try:
        constants, floats = (_refuse_constant, _finite) if finite else (None, None)
        value = json.loads(text, parse_constant=constants, parse_float=floats)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON at line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise ValueError("has an incomplete Unicode escape") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except _NotJson as error:
        raise ValueError(str(error)) from None
    except ValueError:  # an integer of thousands of digits
        raise ValueError(_OUT_OF_RANGE) from None
    return value


def decode_json(content: bytes | str) -> str:
    """Return the text of JSON in any Unicode encoding, without its byte order mark.

    Raises:
        ValueError: it is not text; the message is as in `parse_json`.
    """
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ValueError("is neither UTF-8 nor UTF-16 text") from None


class _NotJson(ValueError):
    pass


_OUT_OF_RANGE: Final = "has a number out of range"


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"has the value {name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotJson(_OUT_OF_RANGE)
    return value


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can, so that renames into it survive a crash."""
    if os.name != "posix":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)
