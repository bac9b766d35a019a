"""Keeps what only grows within its limits: copies the database, deletes what has become old, adopts unknown videos.

One thread of the web process. Each round does a little of everything, stops at once when the server does, and goes on
after a failure: what one task of it cannot do now does not keep the others from being done.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import structlog

from backend.core.domain import TERMINAL, TaskStatus, utcnow
from backend.core.errors.base import WanError
from backend.core.files import PART_SUFFIX
from backend.core.heap import return_freed_memory
from backend.core.paths import Home
from backend.core.repeating import Repeating
from backend.core.settings import Settings
from backend.services.system.found_videos import FoundVideos
from backend.store.access.totals import recount
from backend.store.engine import Database
from backend.store.sqlite_file import indexes_differ
from backend.store.tasks import TaskStore
from backend.store.upkeep.backups import Backups
from backend.store.upkeep.retention import Retention, RowLimits, Rows
from backend.store.upkeep.rows_check import unreadable_rows

_DAY, _HOUR = 86_400.0, 3_600.0
#: Beginnings of names in the outputs folder that belong to a task are its id, this long.
_ID_LENGTH: Final = 36
#: Rest of the thread that reads rows, for each second that it worked.
_RESTS: Final = 9.0

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    rows: Rows = field(default_factory=Rows)
    files: int = 0  #: unfinished files and working folders deleted
    trash: int = 0  #: videos deleted whose time in the trash was over
    images: int = 0  #: uploaded images deleted
    adopted: int = 0  #: videos added to the gallery
    drawn: int = 0  #: placeholders drawn for videos without one
    backup: str | None = None  #: file name of a new copy of the database
    failures: tuple[str, ...] = ()


class Janitor:
    """The thread and its rounds; started and stopped with the server."""

    def __init__(
        self,
        settings: Settings,
        home: Home,
        database: Database,
        tasks: TaskStore,
        videos: FoundVideos,
        prune_images: Callable[[], int],
        empty_trash: Callable[[float, Callable[[], bool]], int],
        draw_placeholders: Callable[[Callable[[], bool]], int],
        tidy_imports: Callable[[float], int],
    ) -> None:
        self._settings = settings
        self._home = home
        self._database = database
        self._tasks = tasks
        self._videos = videos
        self._prune_images = prune_images
        self._empty_trash = empty_trash
        self._draw_placeholders = draw_placeholders
        self._tidy_imports = tidy_imports
        self._retention = Retention(database)
        self._thread = Repeating("janitor", self.sweep, settings.janitor_seconds)
        self._stopping = self._thread.stopping.is_set
        self._rows: threading.Thread | None = None  #: reads every row
        self.last: Round | None = None  #: the newest round since the start
        self._worked_until = 0.0  #: processor time of the thread that reads rows, at the end of its last rest
        self.damaged_rows: tuple[str, ...] = ()  #: of the database, each as its table, its key and the fault
        self.backups = Backups(home.backups)

    def start(self) -> None:
        """Adopt unknown videos, before a worker can mistake them for leftovers; then start the thread."""
        try:
            self._tidy_imports(0.0)  # nothing is imported yet: all that is there was left by a killed server
            self._videos.adopt(self._stopping)
        finally:
            self._thread.start()
            self._start_reading()

    def stop(self) -> None:
        """End after the current batch."""
        self._thread.stop()
        if self._rows is not None:
            self._rows.join()

    def sweep(self) -> Round:
        """Run one round and return what it did."""
        failures: list[str] = []

        def attempt(what: str, work: Callable[[], _T], otherwise: _T) -> _T:
            if self._stopping():
                return otherwise
            try:
                return work()
            except WanError as error:
                reason = error.message
            except OSError as error:
                reason = error.strerror or type(error).__name__
            log.warning("janitor.failed", what=what, reason=reason)
            failures.append(f"{what}: {reason}")
            return otherwise

        settings = self._settings
        limits = RowLimits.of(settings)
        done = Round(
            backup=attempt("copying the database", self._back_up, None),
            rows=attempt("deleting old rows", lambda: self._retention.sweep(limits, self._stopping), Rows()),
            files=attempt("deleting unfinished files", self._clear_files, 0),
            trash=attempt("emptying the trash", lambda: self._empty_trash(settings.trash_days, self._stopping), 0),
            images=attempt("deleting unused images", self._prune_images, 0),
            adopted=attempt("adding unknown videos", lambda: len(self._videos.adopt(self._stopping).added), 0),
            drawn=attempt("drawing placeholders", lambda: self._draw_placeholders(self._stopping), 0),
        )
        self.last = replace(done, failures=tuple(failures))
        return_freed_memory()
        return self.last

    def _back_up(self) -> str | None:
        """Copy the database when the newest copy is old enough, and delete the oldest ones."""
        hours = self._settings.backup_hours
        if self._database.file is None or not hours:
            return None
        newest = next(iter(self.backups.list()), None)
        if newest is not None and 0 <= (utcnow() - newest.made_at).total_seconds() < hours * _HOUR:
            return None
        made = self.backups.make(self._database)
        gone = self.backups.prune(self._settings.backup_copies)
        log.info("database.copied", backup=made.path.name, bytes=made.size_bytes, older_deleted=gone)
        self._start_reading()
        return made.path.name

    def _start_reading(self) -> None:
        if self._rows is None or not self._rows.is_alive():
            self._rows = threading.Thread(target=self._read_rows, name="rows", daemon=True)
            self._rows.start()

    def _read_rows(self) -> None:
        """Read every row, at each start and with each copy: damage is told before somebody needs what it hit."""
        self._worked_until = time.thread_time()
        try:
            if recount(self._database):
                log.error("database.totals_were_wrong")
            if self._database.file is None:
                return
            if (difference := indexes_differ(self._database.file)) is not None:
                log.error("database.indexes_differ", difference=difference)
                self._database.rebuild_indexes()
            if self._database.repair_search():
                log.error("database.search_rebuilt")
            self.damaged_rows = tuple(unreadable_rows(self._database.file, self._rested))
        except WanError as error:  # the database itself is at fault, and says so in its own place
            log.warning("janitor.failed", what="reading every row", reason=error.message)
            return
        finally:
            return_freed_memory()
        for row in self.damaged_rows:
            log.error("database.row_unreadable", row=row)

    def _rested(self) -> bool:
        """Leave most of the interpreter's time to requests, and return whether the janitor stops.

        Reading rows is work of Python: without rests, every answer takes twice as long while they are read.
        """
        stopping = self._thread.stopping.wait(_RESTS * (time.thread_time() - self._worked_until))
        self._worked_until = time.thread_time()
        return stopping

    def _clear_files(self) -> int:
        cleared = self._tidy_imports(_HOUR)
        for path in (*self._parts(), *self._working_folders()):
            log.info("janitor.file_deleted", folder=path.parent.name, name=path.name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            cleared += 1
        return cleared

    def _parts(self) -> Iterator[Path]:
        """Yield old unfinished files; those of models belong to their downloads."""
        home = self._home
        for folder in (home.root, home.outputs, home.inputs, home.loras, home.backups):
            for path in folder.glob(f"*{PART_SUFFIX}*") if folder.is_dir() else ():
                old = _older(path, self._settings.keep_parts_hours * _HOUR)
                if old and path.is_file() and not self._runs(path.name[:_ID_LENGTH]):
                    yield path

    def _working_folders(self) -> Iterator[Path]:
        """Yield what ended tasks that are not to be retried any more, or unknown ones, left in `work`."""
        seconds = self._settings.keep_states_hours * _HOUR
        for path in self._home.work.iterdir() if self._home.work.is_dir() else ():
            status, goes_on = self._tasks.fate(path.name, seconds)
            if not goes_on and (status in TERMINAL or (status is None and _older(path, max(seconds, _HOUR)))):
                yield path

    def _runs(self, task_id: str) -> bool:
        return self._tasks.status_of(task_id) is TaskStatus.PROCESSING


def _older(path: Path, seconds: float) -> bool:
    try:
        return path.stat().st_mtime < time.time() - seconds
    except OSError:
        return False
