"""`wan22 queue`: see and change the queue of a running server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.terminal import ServerOption, out, running_server

app = typer.Typer(help="See and change the queue of a running server.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, server: ServerOption = None) -> None:
    """List the tasks, newest first."""
    ctx.obj = server
    if ctx.invoked_subcommand is not None:
        return
    with running_server(server) as client:
        answer = client.call("GET", "/api/v1/queue")
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
    for reason in sorted({task.get("message", "") for task in answer["tasks"] if task["status"] == "pending"} - {""}):
        out.print(reason, style="dim", markup=False)


@app.command("cancel")
def cancel(ctx: typer.Context, task_id: Annotated[str, typer.Argument(help="Id of the task.")]) -> None:
    """Cancel a waiting or running task."""
    with running_server(ctx.obj) as client:
        out.print(client.call("POST", f"/api/v1/queue/{task_id}/cancel", json={})["message"])
