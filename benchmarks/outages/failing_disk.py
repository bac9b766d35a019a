"""A folder on a disk that can be told to fail: a FUSE file system that passes everything to another folder.

`python -m benchmarks.outages.failing_disk STORED MOUNTED CONDITION` mounts it until it is ended; the third argument is
a file with the word for its present condition. Needs Linux and the FUSE 3 library.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from benchmarks.home_server import Late, wait_for

#: How long mounting and unmounting may take, in seconds.
_MOUNT_SECONDS: Final = 20.0
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STAT: Final = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks", "st_blksize")
_TIMES: Final = ("st_atime", "st_mtime", "st_ctime")
_STATFS: Final = (
    "f_bsize",
    "f_frsize",
    "f_blocks",
    "f_bfree",
    "f_bavail",
    "f_files",
    "f_ffree",
    "f_favail",
    "f_namemax",
)


class Condition(StrEnum):
    """What the disk does with a write."""

    SOUND = "sound"
    FULL = "full"  #: refuses what needs more room
    READ_ONLY = "read-only"  #: refuses all, as the kernel does with a damaged disk; files that are open included
    FAILING = "failing"  #: fails with an I/O error


_ERRORS: Final = {Condition.READ_ONLY: errno.EROFS, Condition.FAILING: errno.EIO}


class FailingDisk:
    """A mounted one."""

    def __init__(self, mounted: Path, condition: Path) -> None:
        self.folder = mounted
        self._condition = condition

    def become(self, condition: Condition) -> None:
        """Change its condition, at once."""
        new = self._condition.with_suffix(".new")
        new.write_text(condition)
        new.replace(self._condition)


def why_not() -> str | None:
    """Return why no such disk can be mounted here; None when it can."""
    if not Path("/dev/fuse").exists():
        return "this system has no /dev/fuse"
    try:
        import mfusepy  # noqa: F401 - it looks for the library when it is imported
    except (ImportError, OSError):
        return "the FUSE library is missing (Debian: apt-get install fuse3)"
    return None if os.geteuid() == 0 else "mounting takes root"


@contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk]:
    """Mount one in a new folder.

    Raises:
        Late: it cannot be mounted.
    """
    stored, mounted, condition = folder / "stored", folder / "mounted", folder / "condition"
    stored.mkdir(parents=True)
    mounted.mkdir()
    disk = FailingDisk(mounted, condition)
    disk.become(Condition.SOUND)
    command = [sys.executable, "-m", "benchmarks.outages.failing_disk", str(stored), str(mounted), str(condition)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: os.path.ismount(mounted), _MOUNT_SECONDS, "mounted disk")
        yield disk
    finally:
        disk.become(Condition.SOUND)
        subprocess.run(["umount", "--lazy", str(mounted)], check=False)  # noqa: S607 - a system command
        try:
            process.wait(_MOUNT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Late("the disk was not unmounted") from None


def _serve(stored: Path, mounted: Path, condition: Path) -> None:
    import mfusepy

    class Passing(mfusepy.Operations):  # type: ignore[misc]  # the library has no types
        """Passes each call on to `stored`, unless the condition forbids it."""

        use_ns = True

        def __init__(self) -> None:
            self._read_at = 0.0
            self._now = Condition.SOUND

        def _condition(self) -> Condition:
            if time.monotonic() - self._read_at > 0.01:
                self._now, self._read_at = Condition(condition.read_text()), time.monotonic()
            return self._now

        def _may_write(self) -> None:
            if (number := _ERRORS.get(self._condition())) is not None:
                raise OSError(number, os.strerror(number))

        def _may_grow(self) -> None:
            if self._condition() is Condition.FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        @staticmethod
        def _at(path: str) -> str:
            return f"{stored}{path}"

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            found = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
            values = {name: getattr(found, name) for name in _STAT}
            return values | {name: getattr(found, f"{name}_ns") for name in _TIMES}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(self._at(path))]  # noqa: PTH208 - names are what is asked for

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(self._at(path))
            values = {name: getattr(found, name) for name in _STATFS}
            return values | {"f_bfree": 0, "f_bavail": 0} if self._condition() is Condition.FULL else values

        def open(self, path: str, flags: int) -> int:
            if flags & _WRITES:
                self._may_write()
            return os.open(self._at(path), flags)

        def create(self, path: str, mode: int, *_: Any) -> int:
            self._may_write()
            self._may_grow()
            return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self._may_write()
            if offset + len(data) > os.fstat(fh).st_size:
                self._may_grow()
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            self._may_write()
            os.truncate(self._at(path) if fh is None else fh, length)
            return 0

        def flush(self, path: str, fh: int) -> int:
            return 0

        def fsync(self, *_: Any) -> int:
            self._may_write()
            return 0  # the machine is not switched off

        def fsyncdir(self, *_: Any) -> int:
            self._may_write()
            return 0

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def rename(self, old: str, new: str) -> int:
            self._may_write()
            os.rename(self._at(old), self._at(new))  # noqa: PTH104 - the call that was made
            return 0

        def unlink(self, path: str) -> int:
            self._may_write()
            os.unlink(self._at(path))  # noqa: PTH108
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            self._may_write()
            self._may_grow()
            os.mkdir(self._at(path), mode)  # noqa: PTH102
            return 0

        def rmdir(self, path: str) -> int:
            self._may_write()
            os.rmdir(self._at(path))  # noqa: PTH106
            return 0

        def link(self, target: str, source: str) -> int:
            self._may_write()
            os.link(self._at(source), self._at(target))
            return 0

        def chmod(self, path: str, mode: int) -> int:
            self._may_write()
            os.chmod(self._at(path), mode)  # noqa: PTH101
            return 0

        def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
            self._may_write()
            os.utime(self._at(path)) if times is None else os.utime(self._at(path), ns=times)
            return 0

    mfusepy.FUSE(Passing(), str(mounted), foreground=True, nothreads=False)


if __name__ == "__main__":
    _serve(*map(Path, sys.argv[1:4]))
