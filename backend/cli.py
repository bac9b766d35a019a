"""The `wan22` command. Parses, calls, prints; every decision is made elsewhere.

Heavy modules are imported inside the commands that need them, so that `wan22 --help` starts at once.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend import __version__
from backend.core.errors import BadSettings, GenerationFailed, TaskCancelled, WanError
from backend.core.settings import Settings, load_settings

app = typer.Typer(
    help="Turn text into video with Wan2.2, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
queue_app = typer.Typer(help="See and change the queue of a running server.", no_args_is_help=False)
app.add_typer(queue_app, name="queue")

out = Console()
err = Console(stderr=True)

ServerOption = Annotated[
    str | None, typer.Option("--server", help="Address of a running server; default is this home's own.")
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [default: 8000].")] = None,
) -> None:
    """Start the server: API, live progress and one worker for this machine."""
    from backend.core.logging import configure_logging
    from backend.server import serve as run_server

    settings = load_settings(**_given(host=host, port=port))
    configure_logging(settings)
    run_server(settings)


@app.command()
def worker(
    worker_id: Annotated[str | None, typer.Option(help="Name of this worker; chosen when left out.")] = None,
) -> None:
    """Run one worker: take tasks from the queue and generate. `serve` starts one by itself."""
    from backend.core.logging import configure_logging
    from backend.worker.runner import run_worker

    settings = load_settings()
    configure_logging(settings)
    raise typer.Exit(run_worker(settings, worker_id))


@app.command()
def generate(
    prompt: Annotated[
        str, typer.Argument(help='What to show, such as "a red circle moving right on a navy background".')
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to save the MP4.")] = None,
    model: Annotated[str, typer.Option(help="Model name, or auto.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Same seed, same video [default: random].")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale (high-noise expert).")] = None,
    guidance_2: Annotated[
        float | None, typer.Option("--guidance-2", help="Guidance scale of the low-noise expert.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames, 4k+1.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of the file.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="unipc or euler.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    server: ServerOption = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Start a server for this run even if one is running elsewhere.")
    ] = False,
) -> None:
    """Generate a video through a running server, or by itself when there is none."""
    from backend.client import ApiClient, find_server, own_server

    settings = load_settings()
    if output is not None and not output.parent.is_dir():
        # Said before the work is done, not after it.
        raise BadSettings(
            f"The folder {output.parent} does not exist", suggestions=("Create it, or choose another -o.",)
        )
    wish = {
        "prompt": prompt,
        "model_type": model,
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance,
        "guidance_scale_2": guidance_2,
        "resolution": size,
        "num_frames": frames,
        "fps": fps,
        "scheduler": scheduler,
        "negative_prompt": negative,
    }
    address = server or (None if standalone else find_server(settings))
    if address is None:
        err.print("No server is running: starting one for this video.", style="dim")
    with nullcontext(address) if address else own_server(settings) as url:
        client = ApiClient(url, settings)
        try:
            _generate(client, wish, output)
        finally:
            client.close()


def _generate(client: Any, wish: dict[str, Any], output: Path | None) -> None:
    """Submit, show the progress, save the file and say what made it."""
    from backend.progress_bar import follow_with_bar

    submitted = client.submit(wish)
    for note in submitted.get("adjustments") or []:
        err.print(f"note: {escape(note)}", style="yellow")
    task_id = submitted["task_id"]
    try:
        task = follow_with_bar(client.follow(task_id), err)
    except KeyboardInterrupt:
        client.call("POST", f"/api/v1/queue/{task_id}/cancel", json={})
        raise TaskCancelled("Cancelled.") from None
    if task["status"] == "cancelled":
        raise TaskCancelled("The task was cancelled.")
    if task["status"] == "failed":
        raise GenerationFailed(
            task.get("error_message") or "The task failed.", suggestions=tuple(task.get("suggestions") or ())
        )
    target = output or Path(f"wan22-{task_id[:8]}.mp4")
    client.save_video(task_id, target)
    video = client.call("GET", f"/api/v1/outputs/{task_id}")
    made = video["generation_params"]
    out.print(f"[bold green]{escape(str(target))}[/]  {video['resolution']}, {made['num_frames']} frames, H.264")
    out.print(
        f"made by {made['model']}, seed {made['seed']}, {made['steps']} steps, {made['scheduler']}, "
        f"guidance {made['guidance_scale']:g}"
        + (f"/{made['guidance_scale_2']:g}" if made.get("guidance_scale_2") is not None else "")
        + f", in {video['generation_seconds']:.1f} s"
    )
    for warning in video.get("warnings") or []:
        err.print(f"warning: {escape(warning)}", style="yellow")


@queue_app.callback(invoke_without_command=True)
def queue(ctx: typer.Context, server: ServerOption = None) -> None:
    """List the tasks, newest first."""
    ctx.obj = server
    if ctx.invoked_subcommand is not None:
        return
    answer = _client(server).call("GET", "/api/v1/queue")
    table = Table("task", "status", "%", "model", "size", "prompt", box=None)
    for task in answer["tasks"]:
        table.add_row(
            task["id"],
            task["status"],
            str(task["progress"]),
            task["model_type"],
            task["resolution"],
            escape(task["prompt"]),
        )
    out.print(table)
    out.print(f"{answer['pending_tasks']} waiting, {answer['processing_tasks']} running", style="dim")


@queue_app.command("cancel")
def queue_cancel(ctx: typer.Context, task_id: Annotated[str, typer.Argument(help="Id of the task.")]) -> None:
    """Cancel a waiting or running task."""
    out.print(_client(ctx.obj).call("POST", f"/api/v1/queue/{task_id}/cancel", json={})["message"])


@app.command()
def doctor() -> None:
    """Say what is here, what is usable and why not."""
    from backend.doctor import examine

    findings = examine(load_settings())
    table = Table("", "what", "finding", box=None)
    for finding in findings:
        mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}[finding.grade]
        table.add_row(mark, finding.subject, escape(finding.text))
    out.print(table)
    if any(finding.grade == "bad" for finding in findings):
        raise typer.Exit(1)


def _client(server: str | None) -> Any:
    from backend.client import ApiClient, ServerUnreachable, find_server

    settings: Settings = load_settings()
    address = server or find_server(settings)
    if address is None:
        raise ServerUnreachable(f"No server is running for {settings.paths.root}.")
    return ApiClient(address, settings)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Run the command; an error becomes its sentence and its next step, never a traceback."""
    try:
        app()
    except WanError as error:
        err.print(f"[bold red]error:[/] {escape(error.message)}")
        for step in error.next_steps:
            err.print(f"  → {escape(step)}")
        sys.exit(130 if isinstance(error, TaskCancelled) else 1)


if __name__ == "__main__":
    main()
