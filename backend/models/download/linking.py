"""Gives a file a second name: a hard link, a symbolic link across disks, or a copy on request."""

from __future__ import annotations

import os
import shutil
from enum import StrEnum
from pathlib import Path


class Link(StrEnum):
    """How a file got its second name."""

    HARD = "hard link"  # both names are the file; either may be deleted
    SYMBOLIC = "symbolic link"  # the file stays where it is, and must stay there
    COPY = "copy"


def link_file(source: Path, target: Path, *, copy: bool = False) -> Link:
    """Give the file behind `source` the name `target`, which must be free; the source is never changed.

    Raises:
        OSError: the target's folder cannot be written, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve(strict=True)
    if copy:
        shutil.copyfile(real, target)
        return Link.COPY
    try:
        os.link(real, target)
    except OSError:
        # Another device, a file of another user, a file system without hard links.
        target.symlink_to(real)
        return Link.SYMBOLIC
    return Link.HARD
