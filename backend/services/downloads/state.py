"""One download of a model: its state, who runs it, and what can be done with it; and which orders are in force.

Starts and stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import DownloadProgress
from backend.core.errors.base import WanError
from backend.models.folder.manager import ModelManager
from backend.store.download_orders import DownloadOrders, Order, Urgency

log = structlog.get_logger(__name__)


class DownloadState(StrEnum):
    """The state of a download."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUNNING: Final = frozenset({DownloadState.DOWNLOADING, DownloadState.VERIFYING})
ENDED: Final = frozenset({DownloadState.COMPLETED, DownloadState.FAILED, DownloadState.CANCELLED})


def waits_for_resume(model: str) -> str:
    """Explain to a task's owner why the task does not run."""
    return f"Somebody paused the download of {model}: this task waits until it is resumed"


def orders_in_force(orders: DownloadOrders, models: ModelManager) -> list[Order]:
    """Return the orders, after striking every paused one whose model needs no download.

    A forgotten pause must not block the tasks of a model that has been completed, by whatever process or by hand. Nor
    those of a model that is not in the table any more: their attempts report it. Reads the disk for paused orders only.
    """
    in_force = []
    for order in orders.list():
        if order.paused and _is_needless(order, models):
            orders.remove(order.model)
            log.info("download.pause_struck", model=order.model)
        else:
            in_force.append(order)
    return in_force


def _is_needless(order: Order, models: ModelManager) -> bool:
    spec = models_in_force().get(order.model)
    if spec is None:
        return order.needed
    try:
        return spec.embedded or models.complete(spec)
    except OSError as error:
        log.warning("download.model_not_read", model=order.model, error=str(error))
        return False


class Runner(StrEnum):
    """Who runs a download."""

    SERVER = "server"  # a server, because it was ordered
    TASK = "task"  # a worker, for a task that needs the model
    OTHER = "other"  # a command line, or the server of another database: it can be watched, not changed


@dataclass(frozen=True, slots=True)
class Download:
    """One download; unknown values are None."""

    spec: ModelSpec
    state: DownloadState
    urgency: Urgency
    number: int  #: order of arrival
    updated_at: datetime
    progress: DownloadProgress | None = None
    error: WanError | None = None
    runner: Runner = Runner.SERVER
    needed: bool = False  #: whether an unfinished task is for this model

    @property
    def can_pause(self) -> bool:
        """Whether a pause would stop it."""
        going = self.state in RUNNING or self.state is DownloadState.QUEUED
        return going and self.runner is not Runner.OTHER

    @property
    def can_resume(self) -> bool:
        """Whether it is paused."""
        return self.state is DownloadState.PAUSED

    @property
    def can_cancel(self) -> bool:
        """Whether it may be given up with its bytes: no task waits for it."""
        return self.state not in ENDED and self.runner is Runner.SERVER and not self.needed
