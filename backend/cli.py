"""The `wan22` command, assembled from its groups. Only parses, calls and prints.

Heavy modules are imported inside the commands that need them, so that `wan22 --help` starts instantly. `main` is the
last boundary: whatever goes wrong ends as a sentence and an exit status.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Final, NoReturn

import structlog
import typer
from rich.markup import escape
from rich.table import Table
from typer.exceptions import TyperException

from backend import __version__
from backend.commands import loras, queue
from backend.commands.conformance.suite import conformance
from backend.commands.console.advice import misused, steps_in_terminal, unforeseen
from backend.commands.console.terminal import JsonOption, err, out, print_error_json, print_json
from backend.commands.gallery import import_clips, list_videos, open_video, remove_videos, show_video
from backend.commands.generate import extend, generate, redecode
from backend.commands.models import catalogue as models
from backend.commands.plan import plan
from backend.commands.replay import replay
from backend.commands.system import config, database, keys, webhooks
from backend.commands.system.workers import drain, list_workers, resume
from backend.core.config.file import ConfigFile
from backend.core.config.history import AUTHOR
from backend.core.errors.base import WanError
from backend.core.errors.interruptions import Interrupted, TaskCancelled
from backend.core.settings import Settings, load_settings, unknown_variables

app = typer.Typer(
    help="Turn text and images into video with Wan2.2, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # with "rich", `[default: …]` would be read as a style
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: Exit statuses besides 0: something failed, the command was called wrongly, the user stopped it.
FAILED: Final = 1
MISUSED: Final = 2
CANCELLED: Final = 130


#: Commands that report ignored settings in their own way: in the log, or among their findings.
_REPORT_THEMSELVES = frozenset({"serve", "worker", "doctor", "config"})


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    AUTHOR.set(f"wan22 {context.invoked_subcommand}")
    if context.invoked_subcommand not in _REPORT_THEMSELVES and not {"-h", "--help"} & {*sys.argv}:
        for fault in _ignored(load_settings()):
            err.print(f"warning: {fault}", style="yellow", markup=False, highlight=False)


def _ignored(settings: Settings) -> list[str]:
    """Return what has no effect in the environment and in config.json."""
    if not settings.paths.config_file.exists():
        return unknown_variables()
    from backend.services.system.configuration import configuration_faults

    return unknown_variables() + configuration_faults(settings.paths)


def _start_log(settings: Settings) -> None:
    from backend.core.logging import configure_logging

    configure_logging(settings)
    for fault in _ignored(settings):
        structlog.get_logger(__name__).warning("settings.ignored", fault=fault)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one [default: 8000].")] = None,
) -> None:
    """Start the server: API, live progress and one worker for this machine."""
    gc.disable()  # imports make objects that stay: to look for garbage among them only delays the start
    try:
        from backend.server import serve as run_server
    finally:
        gc.freeze()
        gc.enable()

    settings = load_settings(**_given(host=host, port=port))
    file = ConfigFile(settings.paths.config_file)
    file.content()  # a broken one is refused before anything starts
    if file.mark is not None:
        file.note()
    _start_log(settings)
    try:
        run_server(settings)
    except SystemExit as end:  # the signal that stopped it
        _end(end.code if isinstance(end.code, int) else FAILED)
    _end(0)


worker_app = typer.Typer(help="Run one worker; list, drain and resume the devices of a running server.")
worker_app.command("list")(list_workers)
worker_app.command("drain")(drain)
worker_app.command("resume")(resume)
app.add_typer(worker_app, name="worker")


@worker_app.callback(invoke_without_command=True)
def worker(
    context: typer.Context,
    worker_id: Annotated[str | None, typer.Option(help="Name of this worker; generated if omitted.")] = None,
) -> None:
    """Run one worker: take tasks from the queue and generate. `serve` starts one automatically."""
    if context.invoked_subcommand is not None:
        return
    from backend.worker.runner import run_worker

    settings = load_settings()
    if worker_id is None:  # a server's worker goes on with what its server has
        ConfigFile(settings.paths.config_file).content()
    _start_log(settings)
    _end(run_worker(settings, worker_id))


app.command()(generate)
app.command()(extend)
app.command()(redecode)
app.command()(replay)
app.command("list")(list_videos)
app.command("show")(show_video)
app.command("open")(open_video)
app.command("rm")(remove_videos)
app.command("import")(import_clips)
app.command()(plan)
app.command()(conformance)
app.add_typer(queue.app, name="queue")
app.add_typer(loras.app, name="loras")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(database.app, name="db")
app.add_typer(config.app, name="config")


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the model hub.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check what is installed and usable, and explain what is not. Exit status 1 if something needs repair."""
    from backend.commands.doctor import examine

    findings = examine(load_settings(), offline=offline)
    bad = any(finding.grade == "bad" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(finding) for finding in findings]})
        raise typer.Exit(int(bad))
    table = Table("", "what", "finding", box=None)
    for finding in findings:
        mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}[finding.grade]
        table.add_row(mark, finding.subject, escape(finding.text))
    out.print(table)
    if bad:
        raise typer.Exit(1)


def _end(status: int) -> NoReturn:
    """End this process at once: everything is saved, and taking the libraries apart would take seconds."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Run the command and end the process; an error is printed as its message and next steps, never as a traceback."""
    sys.exit(_status())


def _status() -> int:
    """Run the command and return the exit status."""
    try:
        # Not standalone: typer returns the status, and leaves errors to this boundary.
        status = app(prog_name="wan22", standalone_mode=False)
    except WanError as error:
        _tell(error)
        return CANCELLED if isinstance(error, Interrupted) else FAILED
    except TyperException as error:
        return misused(error)
    except typer.Abort:  # the user answered a question with no
        err.print("Nothing was changed.")
        return FAILED
    except KeyboardInterrupt:
        status = CANCELLED
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last boundary: what nobody foresaw is still a sentence
        _tell(unforeseen(error))
        return FAILED
    if status == CANCELLED:
        _tell(TaskCancelled("Cancelled.", suggestions=()))
    return status if isinstance(status, int) else 0


def _tell(error: WanError) -> None:
    label = "" if isinstance(error, Interrupted) else "[bold red]error:[/] "
    err.print(f"{label}{escape(error.message)}", highlight=False, soft_wrap=True)
    for step in steps_in_terminal(error):
        err.print(f"  → {escape(step)}", highlight=False, soft_wrap=True)
    if "--json" in sys.argv[1:]:
        print_error_json(error)


if __name__ == "__main__":
    main()
