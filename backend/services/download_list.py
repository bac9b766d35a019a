"""The downloads that this process knows of, each as it is now, and who hears of every change.

Decides nothing, starts nothing, and knows neither the database nor the line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import utcnow
from backend.core.errors import DownloadNotFound, StateConflict, WanError
from backend.services.download import ENDED, Download, DownloadState
from backend.store.download_orders import Urgency

_ORDER: Final = {urgency: rank for rank, urgency in enumerate(Urgency)}

#: Told the state before and the download after each change and, now and then, of its progress.
OnChange = Callable[[DownloadState | None, Download], None]


class DownloadList:
    """One download for each model. Any thread may call; within `changed` the list stands still."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  #: notified at every change
        self.on_change: OnChange = lambda _before, _download: None
        self._downloads: dict[str, Download] = {}

    def get(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model, also one that has ended; None when nobody asked for it."""
        with self.changed:
            return self._downloads.get(spec.id)

    def active(self, spec: ModelSpec) -> Download:
        """Return the download of a model that has not ended.

        Raises:
            DownloadNotFound, StateConflict: nobody asked for this model; it has ended.
        """
        known = self.get(spec)
        if known is None:
            raise DownloadNotFound
        if known.state in ENDED:
            raise StateConflict(f"The download of {spec.id} has ended: {known.state}")
        return known

    def all_active(self) -> list[Download]:
        """Return the downloads that have not ended."""
        with self.changed:
            return [one for one in self._downloads.values() if one.state not in ENDED]

    def next_waiting(self) -> Download | None:
        """Return the download whose turn it is: the most urgent one, and of these the oldest."""
        waiting = [one for one in self.all_active() if one.state is DownloadState.QUEUED]
        return min(waiting, key=lambda one: (_ORDER[one.urgency], one.number), default=None)

    def move(self, spec: ModelSpec, state: DownloadState) -> Download:
        """Change the state of a download that has not ended. Raises like `active`."""
        with self.changed:
            return self.set(self.active(spec), state)

    def set(self, download: Download, state: DownloadState, error: WanError | None = None) -> Download:
        """Put a download in with another state, and what it failed with."""
        return self.put(replace(download, state=state, error=error))

    def put(self, download: Download) -> Download:
        """Put a download in the place of what was known of its model, and tell."""
        with self.changed:
            before = self._downloads.get(download.spec.id)
            download = replace(download, updated_at=utcnow())
            self._downloads[download.spec.id] = download
            self.changed.notify_all()
            self.on_change(None if before is None else before.state, download)
            return download
