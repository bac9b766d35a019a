"""`wan22 queue`: see, follow and change the queue of a running server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from backend.commands.terminal import JsonOption, ServerOption, out, print_json, running_server
from backend.core.domain import SHORT_ID

if TYPE_CHECKING:
    from backend.commands.client import ApiClient

app = typer.Typer(help="See, follow and change the queue of a running server.", no_args_is_help=False)
WATCH_SECONDS = 1.0


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """List the tasks, newest first."""
    ctx.obj = server
    if ctx.invoked_subcommand is not None:
        return
    with running_server(server) as client:
        answer = _queue(client)
    if as_json:
        print_json(answer["tasks"])
    else:
        out.print(_table(answer))
        for line in _summary(answer):
            out.print(line, style="dim", markup=False, soft_wrap=True)


@app.command("cancel")
def cancel(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the task or its beginning; `last`.")],
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Cancel a waiting or running task."""
    with running_server(server or ctx.obj) as client:
        found = client.task_id(task_id, unfinished=True)
        answer = client.call("POST", f"/api/v1/queue/{found}/cancel", json={})
    if as_json:
        print_json(answer)
    else:
        out.print(answer["message"])


@app.command("clear")
def clear(ctx: typer.Context, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Remove the finished tasks from the list; their videos stay."""
    with running_server(server or ctx.obj) as client:
        answer = client.call("POST", "/api/v1/queue/clear", json={})
    if as_json:
        print_json(answer)
    else:
        count = answer["cleared"]
        out.print(f"{count} finished {'task was' if count == 1 else 'tasks were'} removed; the videos stay")


@app.command("watch")
def watch(ctx: typer.Context, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Follow the queue until nothing waits or runs; Ctrl-C leaves it as it is."""
    with running_server(server or ctx.obj) as client:
        answer = _queue(client)
        if as_json or not out.is_terminal:
            _print_changes(client, answer, as_json=as_json)
            return
        with Live(_table(answer), console=out, auto_refresh=False) as live:
            while _is_busy(answer):
                time.sleep(WATCH_SECONDS)
                answer = _queue(client)
                live.update(_table(answer), refresh=True)
        out.print(_summary(answer)[0], style="dim")


def _print_changes(client: ApiClient, answer: dict[str, Any], *, as_json: bool) -> None:
    """Print one line, or one JSON object, for each change of a task."""
    shown: dict[str, tuple[str, int]] = {}
    while True:
        for task in reversed(answer["tasks"]):
            mark = (task["status"], int(task["progress"]) // 10)
            if shown.get(task["id"]) != mark:
                shown[task["id"]] = mark
                line = f"{task['id'][:SHORT_ID]}  {task['status']:<10} {task['progress']:>3} %  {task['prompt']}"
                typer.echo(json.dumps(task, ensure_ascii=False) if as_json else line)
        if not _is_busy(answer):
            return
        time.sleep(WATCH_SECONDS)
        answer = _queue(client)


def _queue(client: ApiClient) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("GET", "/api/v1/queue")
    return answer


def _is_busy(answer: dict[str, Any]) -> bool:
    return bool(answer["pending_tasks"] or answer["processing_tasks"])


def _table(answer: dict[str, Any]) -> Table:
    table = Table("task", "status", "%", "model", "size", "prompt", box=None)
    for task in answer["tasks"]:
        words = (task["id"][:SHORT_ID], task["status"], str(task["progress"]), task["model_type"], task["resolution"])
        table.add_row(*words, escape(task["prompt"]))
    return table


def _summary(answer: dict[str, Any]) -> list[str]:
    """Return the counts, and each reason why tasks wait."""
    waiting = {task.get("message", "") for task in answer["tasks"] if task["status"] == "pending"} - {""}
    return [f"{answer['pending_tasks']} waiting, {answer['processing_tasks']} running", *sorted(waiting)]
