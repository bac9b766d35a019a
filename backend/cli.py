"""The `wan22` command, assembled from its groups. Only parses, calls and prints.

Heavy modules are imported inside the commands that need them, so that `wan22 --help` starts instantly.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.table import Table

from backend import __version__
from backend.commands import loras, queue
from backend.commands.generate import extend, generate, redecode
from backend.commands.models import catalogue as models
from backend.commands.plan import plan
from backend.commands.replay import replay
from backend.commands.terminal import err, out
from backend.core.errors import Interrupted, WanError
from backend.core.settings import Settings, load_settings, unknown_variables

app = typer.Typer(
    help="Turn text and images into video with Wan2.2, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)


#: Commands that report ignored settings in their own way: in the log, or among their findings.
_REPORT_THEMSELVES = frozenset({"serve", "worker", "doctor"})


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in _REPORT_THEMSELVES and "--help" not in sys.argv:
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
    from backend.server import serve as run_server

    settings = load_settings(**_given(host=host, port=port))
    _start_log(settings)
    run_server(settings)


@app.command()
def worker(
    worker_id: Annotated[str | None, typer.Option(help="Name of this worker; generated if omitted.")] = None,
) -> None:
    """Run one worker: take tasks from the queue and generate. `serve` starts one automatically."""
    from backend.worker.runner import run_worker

    settings = load_settings()
    _start_log(settings)
    raise typer.Exit(run_worker(settings, worker_id))


app.command()(generate)
app.command()(extend)
app.command()(redecode)
app.command()(replay)
app.command()(plan)
app.add_typer(queue.app, name="queue")
app.add_typer(loras.app, name="loras")
app.add_typer(models.app, name="models")


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the model hub.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check what is installed and usable, and explain what is not. Exit status 1 if something needs repair."""
    from backend.commands.doctor import examine

    findings = examine(load_settings(), offline=offline)
    bad = any(finding.grade == "bad" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not bad, "findings": [asdict(finding) for finding in findings]}, indent=2))
        raise typer.Exit(int(bad))
    table = Table("", "what", "finding", box=None)
    for finding in findings:
        mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}[finding.grade]
        table.add_row(mark, finding.subject, escape(finding.text))
    out.print(table)
    if bad:
        raise typer.Exit(1)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Run the command; print an error as its message and next steps, never as a traceback."""
    try:
        app()
    except WanError as error:
        err.print(f"[bold red]error:[/] {escape(error.message)}")
        for step in error.next_steps:
            err.print(f"  → {escape(step)}")
        sys.exit(130 if isinstance(error, Interrupted) else 1)


if __name__ == "__main__":
    main()
