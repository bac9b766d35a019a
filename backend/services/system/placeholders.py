"""Draws the placeholders of videos that have none: those of an earlier version, and those found on the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backend.core.paths import Home
from backend.store.gallery.listing import GalleryListing
from backend.store.gallery.marks import GalleryMarks

#: Videos of one transaction; a thumbnail takes a millisecond or two.
BATCH: Final = 100
#: Videos of one round, so that a large gallery keeps a core busy for seconds and not for an hour.
MOST: Final = 5_000


class Placeholders:
    """Goes through the gallery, newest video first."""

    def __init__(self, home: Home, gallery: GalleryListing, marks: GalleryMarks) -> None:
        self._home = home
        self._gallery = gallery
        self._marks = marks

    def draw(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Draw placeholders from the thumbnails; return the number of videos that have one now.

        A video whose thumbnail is gone gets an empty one, so that it is not tried again in each round.

        Raises:
            StoreFailed: the database is not usable now.
        """
        drawn = 0
        for _ in range(MOST // BATCH):
            ids = [] if stopping() else self._gallery.undrawn(BATCH)
            if not ids:
                break
            from backend.services.media.placeholder import placeholder_of  # takes NumPy and Pillow

            found = {one: placeholder_of(self._home.thumbnail_of(one)) or b"" for one in ids}
            self._marks.draw(found)
            drawn += sum(map(bool, found.values()))
        return drawn
