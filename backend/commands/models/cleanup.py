"""`wan22 models cleanup`: lists what can be deleted, and deletes it on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, finite, out, own_database, own_home, own_need, print_json
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.models.folder.storage import StorageReport
    from backend.services.models.cleanup import StorageCleanup
    from backend.store.upkeep.retention import Rows

_GB = 1e9


def cleanup(
    keep_days: Annotated[int, typer.Option("--keep-days", min=0, help="Keep models used within these days.")] = 30,
    free: Annotated[
        float | None,
        typer.Option("--free", min=0, callback=finite, help="Stop when this many GB are free; default: delete all."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete; without it, only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the disk space of the models and what can be deleted: leftovers, and models no longer used."""
    with _opened() as care:
        report = care.report()
        target = None if free is None else round(free * _GB)
        found = care.suggestions(report, keep_days=keep_days, target_free=target)
        if as_json:
            done = care.carry_out(found) if yes else []
            listed = [
                {"what": str(one.what), "model": one.spec.id, "bytes": one.frees, "why": one.reason} for one in found
            ]
            freed = sum(one.freed for one in done)
            answer = {"found": listed, "freed_bytes": freed, "free_bytes": report.free_bytes}
            print_json(answer | {"database": asdict(_old_rows())})
            return
        _show(report)
        old = _old_rows().sentence
        out.print(f"database: {old}; a running server deletes these by itself", markup=False, highlight=False)
        if not found:
            out.print("Nothing to delete")
            return
        for one in found:
            line = f"{one.what} of {one.spec.id}: {one.frees / _GB:,.2f} GB; {one.reason}"
            out.print(f"{'' if yes else 'can be deleted: '}{line}", markup=False, highlight=False)
        if not yes:
            out.print("Nothing was deleted; add --yes to delete")
            return
        done = care.carry_out(found)
        for failed in (one for one in done if one.error is not None):
            out.print(f"{failed.suggestion.spec.id} was kept: {failed.error}", markup=False)
        out.print(f"{sum(one.freed for one in done) / _GB:,.2f} GB were freed")


def _show(report: StorageReport) -> None:
    table = Table("model", "status", "GB", "shared", "elsewhere", "unfinished", "quarantine", "last video", box=None)
    for one in report.models:
        sizes = (one.usage.size, one.usage.shared, one.usage.elsewhere, one.unfinished, one.quarantine)
        last = f"{one.last_used:%Y-%m-%d}" if one.last_used else ""
        numbers = (f"{size / _GB:,.2f}" if size else "" for size in sizes)
        table.add_row(one.spec.id, escape(str(one.presence)), *numbers, last)
    out.print(table)
    out.print(f"{report.free_bytes / _GB:,.2f} GB are free")


def _old_rows() -> Rows:
    """Count what the server deletes in the database, which this command leaves to it."""
    from backend.store.upkeep.retention import Retention, RowLimits

    with own_database() as database:
        return Retention(database).due(RowLimits.of(load_settings()))


@contextmanager
def _opened() -> Iterator[StorageCleanup]:
    from backend.core.planning.hardware import detect_hardware
    from backend.models.folder.manager import ModelManager
    from backend.services.models.cleanup import StorageCleanup
    from backend.store.gallery.outputs import OutputStore

    home = own_home()
    manager = ModelManager(home, has_gpu=bool(detect_hardware().gpus))
    with own_database() as database:
        yield StorageCleanup(home, manager, own_need(home, database), OutputStore(database, home))
