"""Opens the database at a start: new, intact, older, damaged or lost. An empty one never silently replaces another.

Only the process that holds the home's lock may call `open_database`. PostgreSQL looks after its own files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from backend.core.domain import iso, utcnow
from backend.core.errors.base import WanError
from backend.core.errors.surroundings import DatabaseDamaged, StoreFailed
from backend.core.files import read_json, storage_errors, write_json
from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.schema import newest_revision
from backend.store.sqlite_file import FileCondition, Inspection, inspect_file
from backend.store.upkeep.backups import Backups, leave_out_numbers, put_in_place
from backend.store.upkeep.salvage import salvage_tasks

#: A larger database is not rewritten at a start only to let it shrink later, in bytes.
_MAX_REWRITE_BYTES: Final = 2**30
_NEWS: Final = timedelta(days=7)
_TASK_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOST: Final = (FileCondition.MISSING, FileCondition.EMPTY)
_UNUSABLE: Final = (*_LOST, FileCondition.DAMAGED)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Restoration:
    """What replaced a database that could not be used."""

    at: str  #: ISO time
    reason: str  #: what was wrong, as a sentence
    backup: str | None  #: file name of the copy; None = the user chose to begin with an empty database
    made_at: str | None  #: ISO time of the copy: later tasks are not in it
    set_aside: str | None  #: where the old file is now, inside the home
    salvaged: int = 0  #: waiting tasks that were taken over from the old file

    @property
    def is_news(self) -> bool:
        """Whether it happened within the last days, so that every report names it."""
        try:
            return utcnow() - datetime.fromisoformat(self.at) < _NEWS
        except ValueError:
            return False

    @property
    def sentence(self) -> str:
        """Describe it for the user."""
        by = "an empty database" if self.backup is None else f"the copy of {self.made_at}"
        lost = "Newer tasks are not in it"
        if self.salvaged:
            lost = f"{self.salvaged} newer tasks were taken over, others may be missing"
        kept = "" if self.set_aside is None else f"; the old file is {self.set_aside}"
        return f"{self.reason}: it was replaced by {by} on {self.at}. {lost}{kept}"


def videos_on_disk(home: Home) -> Iterator[Path]:
    """Yield the finished videos in the outputs folder, named by their tasks, whether the database knows them or not."""
    found = home.outputs.glob("*.mp4") if home.outputs.is_dir() else ()
    return (path for path in found if _TASK_ID.fullmatch(path.stem))


def open_database(database: Database, home: Home) -> Restoration | None:
    """Make the database usable and its schema current; return what had to be restored for that, if anything.

    A database that is damaged, or that is missing beside videos or backups, is set aside, and the newest intact copy
    takes its place. A database of an older version is copied before it is migrated.

    Raises:
        DatabaseDamaged: there is no intact copy; nothing was changed.
        StoreUnavailable: another program or a newer wan22 wrote it, or it cannot be opened; nothing was changed.
        StorageFull: there is no room for the copy before the migration.
    """
    if database.file is None:
        database.migrate()
        return None
    restored = None
    backups = Backups(home.backups)
    found = inspect_file(database.file)
    if (fault := _fault(found, database.file, home, backups)) is not None:
        restored = _restore(database.file, home, backups, fault)
        found = inspect_file(database.file)
    if found.condition is FileCondition.INTACT and (found.revision or "") < newest_revision():
        made = backups.make(database, before=newest_revision())
        log.info("database.copied", before_schema=newest_revision(), schema=found.revision, backup=made.path.name)
    database.migrate()
    if found.revision is None and last_restoration(home) is not None:  # the user replaced it by an empty one
        with storage_errors():
            leave_out_numbers(database.file)
    if restored is not None:
        if restored.set_aside is not None:
            restored = replace(restored, salvaged=salvage_tasks(database.file.with_name(restored.set_aside), database))
            _note(restored, home)
        log.error("database.restored", **asdict(restored))
    _let_it_shrink(database, database.file)
    return restored


def refuse_lost(file: Path | None, home: Home) -> None:
    """Refuse a database that only a start of the server may repair; for commands that open it without the server.

    Raises:
        DatabaseDamaged: it is damaged, or missing beside videos or backups.
    """
    if file is None:
        return
    fault = _fault(inspect_file(file), file, home, Backups(home.backups))
    if fault is not None:
        raise DatabaseDamaged(fault)


def replace_database(file: Path, home: Home, copy: Path | None, reason: str) -> Restoration:
    """Put a copy, or nothing, in the place of the database, and note it; no process may have it open.

    Raises:
        DatabaseDamaged, StorageFull, StoreUnavailable: as `put_in_place`; nothing was changed.
    """
    now = utcnow()
    made_at = next((one.made_at for one in Backups(home.backups).list() if one.path == copy), None)
    if copy is not None and made_at is None:
        made_at = datetime.fromtimestamp(copy.stat().st_mtime, now.tzinfo) if copy.exists() else now
    aside = put_in_place(copy, file, now)
    restored = Restoration(
        at=iso(now),
        reason=reason,
        backup=None if copy is None else copy.name,
        made_at=None if made_at is None else iso(made_at),
        set_aside=None if aside is None else aside.name,
    )
    _note(restored, home)
    return restored


def _note(restored: Restoration, home: Home) -> None:
    try:
        home.backups.mkdir(exist_ok=True)
        write_json(home.restoration_file, asdict(restored))
    except (OSError, WanError) as error:
        log.warning("database.restoration_not_noted", error=str(error))


def last_restoration(home: Home) -> Restoration | None:
    """Return the last restoration of this home, if it is known."""
    try:
        value = read_json(home.restoration_file)
        return Restoration(**{name: value[name] for name in Restoration.__dataclass_fields__ if name in value})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fault(found: Inspection, file: Path, home: Home, backups: Backups) -> str | None:
    """Return why the database cannot be used as it is; None where it can, or where nothing says that it was lost."""
    if found.condition not in _UNUSABLE:
        return None
    if found.condition is FileCondition.DAMAGED:
        return f"The database {file.name} is damaged ({found.reason})"
    word = "is missing" if found.condition is FileCondition.MISSING else "is empty"
    if videos := sum(1 for _ in videos_on_disk(home)):
        return f"The database {file.name} {word} although there are {videos} videos in `outputs`"
    if backups.list():
        return f"The database {file.name} {word} although there are copies of it in `backups`"
    log_file = file.with_name(f"{file.name}-wal")
    begun = file.exists() and file.stat().st_size > 0  # a start that was killed before its first commit
    if not begun and log_file.exists() and log_file.stat().st_size > 0:
        return f"The database {file.name} {word} although its log {log_file.name} is not"
    return None


def _restore(file: Path, home: Home, backups: Backups, fault: str) -> Restoration:
    backup = backups.newest_intact()
    if backup is None:
        raise DatabaseDamaged(
            f"{fault}, and there is no intact copy of it; nothing was changed",
            suggestions=(
                "If you have a copy elsewhere: `wan22 db restore FILE`.",
                "Otherwise `wan22 db restore --new` begins with an empty queue, keeps the old file, and lists the "
                "videos in `outputs` again.",
            ),
        )
    return replace_database(file, home, backup.path, fault)


def _let_it_shrink(database: Database, file: Path) -> None:
    """Rewrite a database of an older version once, so that it can give free pages back to the disk."""
    with database.read() as connection:
        shrinks = connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != 0
    size = file.stat().st_size
    if shrinks or size > _MAX_REWRITE_BYTES or shutil.disk_usage(file.parent).free < 4 * size:
        return
    try:
        database.compact()
        database.checkpoint()
    except StoreFailed as error:  # a worker uses it; the next start tries again
        log.info("database.not_rewritten", error=error.code)
