"""Shared by all commands: output, the server they use, and common options."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from backend.core.errors.base import WanError
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from backend.commands.client import ApiClient
    from backend.services.models.availability import ModelUsage
    from backend.store.engine import Database

out = Console()
err = Console(stderr=True)

ServerOption = Annotated[
    str | None, typer.Option("--server", help="Address of a running server [default: this home's server].")
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Where to save the MP4.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for programs.")]
VIDEO_SUFFIXES = ("", ".mp4", ".m4v")
_LONGEST_NAME = 240  # bytes; most file systems allow 255, and an unfinished file has a longer name


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, which Python reads as numbers; the callback of every option with a fraction.

    Raises:
        typer.BadParameter: it is one of them.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("must be a finite number")
    return value


def print_json(answer: Any) -> None:
    """Print an answer for programs: JSON on standard output, not wrapped and not coloured."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False, default=str))


def notify(sentence: str) -> None:
    """Print a sentence on standard error while a command waits."""
    err.print(escape(sentence), style="yellow", soft_wrap=True)


def print_error_json(error: WanError) -> None:
    """Print an error for programs as one line of JSON on standard error, behind its sentences."""
    body = {
        "error": error.code,
        "message": error.message,
        "category": error.category,
        "retryable": error.retryable,
        "suggestions": list(error.next_steps),
        "actions": list(error.actions),
    }
    typer.echo(json.dumps(body, ensure_ascii=False, default=str), err=True)


@contextmanager
def only_json_on_stdout(as_json: bool) -> Iterator[None]:
    """While the block runs, print what is meant for people on standard error, if the answer is JSON."""
    before = out.stderr
    out.stderr = before or as_json
    try:
        yield
    finally:
        out.stderr = before


def own_home() -> Home:
    """Return this machine's home folder with its models loaded; for commands that need no server."""
    from backend.models.own.configuration import ModelConfigurationManager

    home = load_settings().paths.create()
    ModelConfigurationManager(home).refresh()
    return home


@contextmanager
def own_database(*, creates: bool = True) -> Iterator[Database]:
    """Open this home's database, even while a server uses it; `creates` = whether a missing one is made.

    Raises:
        DatabaseDamaged: it is damaged or lost; a server repairs it when it starts.
        StoreUnavailable, StorageFull: it cannot be used.
    """
    from backend.store.engine import Database
    from backend.store.upkeep.opening import refuse_lost

    # Of all processes the server alone checkpoints.
    settings = load_settings()
    database = Database(settings.database, checkpointer=False, creates=creates)
    try:
        refuse_lost(database.file, settings.paths)
        database.migrate()
        yield database
    finally:
        database.close()


def own_need(home: Home, database: Database) -> ModelUsage:
    """Return which models of this home are in use."""
    from backend.services.models.availability import ModelUsage
    from backend.store.download_orders import DownloadOrders
    from backend.store.tasks import TaskStore
    from backend.store.workers import WorkerStore

    lease = load_settings().lease_seconds
    return ModelUsage(home, TaskStore(database), WorkerStore(database), DownloadOrders(database), lease)


@contextmanager
def running_server(server: str | None) -> Iterator[ApiClient]:
    """Connect to a running server.

    Raises:
        ServerUnreachable: none runs.
    """
    from backend.commands.client import ApiClient, ServerUnreachable
    from backend.commands.temporary_server import find_server

    settings: Settings = load_settings()
    address = server or find_server(settings)
    if address is None:
        raise ServerUnreachable(f"No server is running for {settings.paths.root}")
    again = (lambda: find_server(settings)) if server is None else (lambda: None)
    client = ApiClient(address, settings, own=server is None, find=again)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def any_server(
    server: str | None,
    *,
    standalone: bool = False,
    worker: bool = True,
    check: Callable[[Settings], None] = lambda settings: None,
) -> Iterator[ApiClient]:
    """Connect to a running server, or to a temporary one if none runs or `standalone` asks for it.

    Args:
        server: the address that the user gave.
        standalone: whether to start a server in any case.
        worker: whether the temporary one can generate.
        check: raises what would be refused, before a server is started for it.
    """
    from backend.commands.client import ApiClient
    from backend.commands.temporary_server import find_server, own_server

    settings = load_settings()
    address = server or (None if standalone else find_server(settings))
    if address is None:
        check(settings)
        if worker:
            err.print("No server is running: starting one for this video.", style="dim")
    with nullcontext(address) if address else own_server(settings, worker=worker) as url:
        again = (lambda: find_server(settings)) if address is not None and server is None else (lambda: None)
        client = ApiClient(url, settings, temporary=address is None, own=server is None, find=again)
        try:
            yield client
        finally:
            client.close()


def check_target(output: Path | None) -> None:
    """Refuse a target that cannot be written before the work starts; None is a file in the current folder.

    Raises:
        BadSettings: it is a folder, not a name for an MP4, or cannot be written.
    """
    output = output or Path("wan22.mp4")
    if not output.parent.is_dir():
        raise BadSettings(
            f"The folder {output.parent} does not exist", suggestions=("Create it, or choose another -o.",)
        )
    if output.is_dir():
        raise BadSettings(f"{output} is a folder", suggestions=("Add the name of the file to -o.",))
    if output.suffix.lower() not in VIDEO_SUFFIXES:
        raise BadSettings(
            f"{output.name} is not a name for an MP4", suggestions=("End it with .mp4; --gif saves a GIF beside it.",)
        )
    if len(os.fsencode(output.name)) > _LONGEST_NAME:
        raise BadSettings("The name of the file is too long", suggestions=("Choose a shorter -o.",))
    # An existing file is replaced by renaming another one over it, for which the folder counts.
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise BadSettings(f"The folder {output.parent} cannot be written", suggestions=("Choose another -o.",))


def check_file(path: Path | None, option: str) -> None:
    """Refuse an unreadable file before anything starts.

    Raises:
        BadSettings: it cannot.
    """
    if path is None:
        return
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadSettings(
            f"{option}: {path} cannot be read: {error.strerror}", suggestions=("Correct the path.",)
        ) from error
