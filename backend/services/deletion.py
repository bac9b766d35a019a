"""Deletes finished videos: into the trash first, and for good when their days there are over.

What is in the trash can be restored with all its marks. What is deleted for good takes everything along that was kept
for it: its files, its row, and the uploaded images that nothing else uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from backend.core.errors.lookups import OutputNotFound
from backend.store.gallery.marks import GalleryMarks
from backend.store.gallery.outputs import OutputStore


class VideoDeletion:
    """Deletes videos that the current caller sees."""

    def __init__(
        self, trash_days: float, outputs: OutputStore, marks: GalleryMarks, prune_inputs: Callable[[], object]
    ) -> None:
        """`trash_days`: how long a video can be restored; 0 = there is no trash."""
        self._trash_days = trash_days
        self._outputs = outputs
        self._marks = marks
        self._prune_inputs = prune_inputs

    def delete(self, output_id: str, *, permanent: bool = False) -> None:
        """Delete one video as `delete_many`.

        Raises:
            OutputNotFound: there is no such video, or it is in the trash and is not to be deleted permanently.
        """
        if not self.delete_many([output_id], permanent=permanent):
            raise OutputNotFound

    def delete_many(self, output_ids: Sequence[str], *, permanent: bool = False) -> list[str]:
        """Move videos into the trash; return the ids of those that were found.

        Where there is no trash, or `permanent`ly, they are deleted with everything kept for them, also from the trash.
        """
        if not permanent and self._trash_days:
            return self._marks.trash(output_ids)
        return self._delete(output_ids)

    def empty_trash(self, days: float = 0.0, stopping: Callable[[], bool] = lambda: False) -> int:
        """Delete for good what has been in the trash for so many days; return the number of videos."""
        deleted = 0
        while not stopping() and (gone := self._delete(self._marks.in_trash(days), trashed_only=True)):
            deleted += len(gone)
        return deleted

    def _delete(self, output_ids: Sequence[str], *, trashed_only: bool = False) -> list[str]:
        deleted = []
        for output_id in output_ids:
            with suppress(OutputNotFound):
                self._outputs.delete(output_id, trashed_only=trashed_only)
                deleted.append(output_id)
        if deleted:
            self._prune_inputs()
        return deleted
