"""`wan22 db`: back up, restore and check the database.

Backups are made of SQLite alone; PostgreSQL has tools of its own, which the commands name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.commands.console.terminal import JsonOption, out, own_database, print_json
from backend.core.errors.surroundings import BadSettings, DatabaseDamaged
from backend.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from backend.store.engine import Database
    from backend.store.sqlite_file import Inspection

app = typer.Typer(help="Back up, restore and check the database.", no_args_is_help=True)
_MB = 1e6
FileArgument = Annotated[Path | None, typer.Argument(help="The copy; default: the newest intact one in `backups`.")]


@app.command()
def backup(
    to: Annotated[Path | None, typer.Option("--to", help="File to write; default: a new one in `backups`.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database, also while a server runs. A server makes a copy every day by itself."""
    from backend.store.upkeep.backups import Backups, make_copy

    settings = load_settings()
    _refuse_postgresql(settings, "pg_dump --format=custom --file=wan22.dump", "the URL of the database")
    with own_database(creates=False) as database:
        if to is None:
            path = Backups(settings.paths.backups).make(database).path
        elif not to.parent.is_dir() or to.is_dir():
            raise BadSettings(f"{to} is not a file in an existing folder", suggestions=("Choose another --to.",))
        else:
            make_copy(database, path := to)
    if as_json:
        print_json({"backup": path, "bytes": path.stat().st_size})
        return
    out.print(f"{path}: {path.stat().st_size / _MB:.1f} MB", markup=False, highlight=False, soft_wrap=True)


@app.command()
def restore(
    file: FileArgument = None,
    new: Annotated[bool, typer.Option("--new", help="Begin with an empty database instead of a copy.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a copy in the place of the database, which is kept beside it. No server may run.

    The next start of the server adds videos that the copy does not know, from the records inside the files.
    """
    from backend.store.upkeep.backups import Backups
    from backend.store.upkeep.opening import replace_database

    settings = load_settings()
    home = settings.paths.create()
    _refuse_postgresql(settings, "pg_restore --clean --if-exists", "the URL of the database, and the dump")
    if new and file is not None:
        raise BadSettings("--new takes no file", suggestions=("Leave one of the two out.",))
    with home.held(), _closed_database(settings) as (database, target):
        copy = file
        if file is None and not new:
            newest = Backups(home.backups).newest_intact()
            if newest is None:
                raise DatabaseDamaged(
                    "There is no intact copy in `backups`; nothing was changed",
                    suggestions=("Name a copy, or begin with an empty database: `wan22 db restore --new`.",),
                )
            copy = newest.path
        what = "an empty database" if copy is None else copy.name
        if not yes:
            typer.confirm(f"Replace {target} by {what}? The old file is kept.", abort=True, err=True)
        restored = replace_database(target, home, copy, "The user replaced the database")
        database.migrate()
    if as_json:
        print_json({"database": target, "from": restored.backup, "set_aside": restored.set_aside})
        return
    out.print(f"{target} is {what} now", markup=False, highlight=False, soft_wrap=True)
    if restored.set_aside is not None:
        out.print(f"the old file is {restored.set_aside}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A database or a copy; default: this home's database.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the whole database, and every copy of it, and say what is damaged. Exit status 1 if the database is."""
    from backend.store.schema import newest_revision
    from backend.store.sqlite_file import FileCondition, inspect_file
    from backend.store.upkeep.backups import Backups
    from backend.store.upkeep.rows_check import unreadable_rows

    settings = load_settings()
    _refuse_postgresql(settings, "pg_amcheck", "the URL of the database")
    with _closed_database(settings) as (_, own):
        target = file or own
    found = inspect_file(target, seconds=None, thorough=True)
    current = found.condition is FileCondition.INTACT and found.revision == newest_revision()
    rows = unreadable_rows(target) if current else []
    intact = found.condition is FileCondition.INTACT and not rows
    copies = [] if file is not None else Backups(settings.paths.backups).list()
    judged = [(one, inspect_file(one.path, seconds=None)) for one in copies]
    if as_json:
        listed = [{"file": one.path, "bytes": one.size_bytes, "condition": look.condition} for one, look in judged]
        answer: dict[str, Any] = {"file": target, "condition": found.condition, "reason": found.reason}
        print_json({"ok": intact, **answer, "unreadable_rows": rows, "backups": listed})
    else:
        out.print(f"{target}: {_words(found)}", markup=False, highlight=False, soft_wrap=True)
        for row in rows:
            out.print(f"cannot be read: {row}", markup=False, highlight=False, soft_wrap=True)
        for one, look in judged:
            size = f"{one.size_bytes / _MB:.1f} MB"
            out.print(f"{one.path}: {size}, {_words(look)}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(int(not intact))


def _words(found: Inspection) -> str:
    return str(found.condition) + (f" ({found.reason})" if found.reason else "")


@contextmanager
def _closed_database(settings: Settings) -> Iterator[tuple[Database, Path]]:
    """Yield this home's SQLite database, which is not opened yet, and its file."""
    from backend.store.engine import Database

    database = Database(settings.database)
    try:
        yield database, database.file or settings.paths.database
    finally:
        database.close()


def _refuse_postgresql(settings: Settings, tool: str, arguments: str) -> None:
    """Raise BadSettings for a PostgreSQL database."""
    with _closed_database(settings) as (database, _):
        if database.file is None:
            raise BadSettings(
                "WAN22_DATABASE_URL names a PostgreSQL database, which has tools of its own for this",
                suggestions=(f"Run `{tool}` with {arguments}.",),
            )
