"""Samples of this machine's load over time: the table `load_samples`. `store/upkeep/retention.py` deletes old ones.

Several machines may share a database; each reads its own samples alone.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Float, Row, cast, func, insert, select

from backend.store.engine import Database
from backend.store.rows import moment, readable
from backend.store.tables import database_now, load_samples

#: Samples closer together than this are not stored, in seconds: whoever asks for one in a loop fills no disk.
SHORTEST_INTERVAL: Final = 1.0
_HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a machine; None = it has no card, or the card does not say."""

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    gpu_percent: float | None = None
    vram_used_mb: float | None = None
    vram_total_mb: float | None = None
    vram_percent: float | None = None


@dataclass(frozen=True, slots=True)
class LoadSample:
    """A load, and when it was measured."""

    taken_at: datetime
    load: Load


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """The samples of a period that ends now, by the database's clock."""

    start: datetime
    end: datetime
    samples: Sequence[LoadSample]  #: oldest first


_VALUES: Final = tuple(Load.__dataclass_fields__)


class LoadSamples:
    """Stores and reads the samples of one machine."""

    def __init__(self, database: Database, host: str | None = None) -> None:
        """Use the samples of `host`; None = this machine."""
        self._database = database
        self._host = host or socket.gethostname()
        self._mine = load_samples.c.host == self._host

    def add(self, load: Load) -> LoadSample:
        """Store a sample and return it; where one is newer than `SHORTEST_INTERVAL`, return that one instead."""
        recent = select(load_samples).where(self._mine, load_samples.c.taken_at > database_now() - SHORTEST_INTERVAL)
        values = {name: getattr(load, name) for name in _VALUES} | {"host": self._host, "taken_at": database_now()}
        with self._database.begin() as connection:
            row = connection.execute(recent.order_by(load_samples.c.taken_at.desc()).limit(1)).first()
            row = row or connection.execute(insert(load_samples).values(values).returning(*load_samples.c)).one()
        return _sample(row)

    def of_last(self, hours: float, most: int) -> LoadHistory:
        """Return the samples of the last hours; of more than `most`, the mean values of `most` equal intervals."""
        with self._database.read() as connection:
            now = float(connection.execute(select(database_now())).scalar_one())
            start = now - hours * _HOUR_SECONDS
            since = self._mine & (load_samples.c.taken_at > start)
            count = int(connection.execute(select(func.count()).select_from(load_samples).where(since)).scalar_one())
            query = select(load_samples).where(since).order_by(load_samples.c.taken_at)
            if count > most:
                number = func.floor((load_samples.c.taken_at - start) / (hours * _HOUR_SECONDS / most))
                query = select(*_means()).where(since).group_by(number).order_by(number).limit(most)
            rows = connection.execute(query).all()
        return LoadHistory(moment(start), moment(now), readable(rows, _sample))


def _means() -> list[ColumnElement[Any]]:
    return [cast(func.avg(load_samples.c[name]), Float).label(name) for name in ("taken_at", *_VALUES)]


def _sample(row: Row[Any]) -> LoadSample:
    return LoadSample(moment(row.taken_at), Load(*(getattr(row, name) for name in _VALUES)))
