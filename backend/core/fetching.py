"""Who brings models here, as the domain sees it: how a fetch is asked for, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from backend.core.model_table import ModelSpec


class FetchProgress(Protocol):
    """One moment of a fetch (`models.download_progress.DownloadProgress`); what is not known is None."""

    @property
    def phase(self) -> str:
        """One of waiting (for somebody else's fetch), downloading, verifying."""

    @property
    def done_bytes(self) -> int:
        """Bytes of the whole model that are on the disk."""

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the whole model."""

    @property
    def speed(self) -> float | None:
        """Bytes per second over the network."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the last byte."""


class ModelFetcher(Protocol):
    """Who brings models here (`models.downloader.ModelDownloader`)."""

    def fetch(
        self, spec: ModelSpec, *, check: Callable[[], None], on_progress: Callable[[FetchProgress], None]
    ) -> Path:
        """Bring the model here, verified, or mend what is damaged; `check` raises to stop, and the bytes stay."""
