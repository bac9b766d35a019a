"""`wan22 queue`: see, follow and change the queue of a running server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import (
    JsonOption,
    ServerOption,
    notify,
    out,
    print_json,
    running_server,
)
from backend.core.domain import SHORT_ID
from backend.core.errors.surroundings import BadSettings

if TYPE_CHECKING:
    from backend.commands.client import ApiClient

AnyTask = Annotated[str, typer.Argument(metavar="ID", help="Id of the task or its beginning; `last`.")]
OptionalTask = Annotated[
    str | None, typer.Argument(metavar="ID", help="Id of the task or its beginning; `last`.", show_default=False)
]
Fields = Annotated[list[str], typer.Argument(metavar="FIELD=VALUE", help="Fields of the API, such as steps=20.")]
OptionalFields = Annotated[
    list[str] | None,
    typer.Argument(metavar="FIELD=VALUE", help="Fields of the API, such as steps=20.", show_default=False),
]
app = typer.Typer(help="See, follow and change the queue of a running server.", no_args_is_help=False)


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
    task_id: AnyTask,
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


@app.command("pause")
def pause(
    ctx: typer.Context,
    task_id: OptionalTask = None,
    now: Annotated[
        bool, typer.Option("--now", help="Interrupt running tasks too; they continue from where they are.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Pause a task, or without ID the whole queue: running tasks then finish, and no other starts."""
    if task_id is None:
        _post(ctx, server, "/api/v1/queue/pause", {"now": now}, as_json=as_json)
    else:
        _post_task(ctx, server, task_id, "pause", as_json=as_json)


@app.command("resume")
def resume(
    ctx: typer.Context, task_id: OptionalTask = None, as_json: JsonOption = False, server: ServerOption = None
) -> None:
    """Resume a paused task, or without ID the whole queue."""
    if task_id is None:
        _post(ctx, server, "/api/v1/queue/resume", {}, as_json=as_json)
    else:
        _post_task(ctx, server, task_id, "resume", as_json=as_json)


@app.command("retry")
def retry(ctx: typer.Context, task_id: AnyTask, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Queue a failed or cancelled task again; it continues from its newest saved state."""
    _post_task(ctx, server, task_id, "retry", as_json=as_json, unfinished=False)


@app.command("move")
def move(
    ctx: typer.Context,
    task_id: AnyTask,
    position: Annotated[int, typer.Argument(min=1, help="Its new place; 1 runs next.")] = 1,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Move a waiting task within the queue, by default to the top."""
    _post_task(ctx, server, task_id, "move", {"position": position}, as_json=as_json)


@app.command("edit")
def edit(
    ctx: typer.Context,
    task_id: AnyTask,
    fields: Fields,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Change fields of the request of a waiting or paused task."""
    body = _fields(fields)
    with running_server(server or ctx.obj) as client:
        found = client.task_id(task_id, unfinished=True)
        answer = client.call("PATCH", f"/api/v1/queue/{found}", json=body)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{found[:SHORT_ID]} was changed: {', '.join(body)}")
        for note in answer["adjustments"]:
            out.print(note, style="dim", markup=False, soft_wrap=True)


@app.command("duplicate")
def duplicate(
    ctx: typer.Context,
    task_id: AnyTask,
    fields: OptionalFields = None,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Queue the request of a task again, perhaps with some fields changed; `seed=` draws another seed."""
    _post_task(ctx, server, task_id, "duplicate", _fields(fields or []), as_json=as_json, unfinished=False)


def _post_task(
    ctx: typer.Context,
    server: str | None,
    task_id: str,
    action: str,
    body: dict[str, Any] | None = None,
    *,
    as_json: bool,
    unfinished: bool = True,
) -> None:
    with running_server(server or ctx.obj) as client:
        found = client.task_id(task_id, unfinished=unfinished)
        _print(client.call("POST", f"/api/v1/queue/{found}/{action}", json=body or {}), as_json=as_json)


def _post(ctx: typer.Context, server: str | None, path: str, body: dict[str, Any], *, as_json: bool) -> None:
    with running_server(server or ctx.obj) as client:
        _print(client.call("POST", path, json=body), as_json=as_json)


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        out.print(answer["message"])


def _fields(texts: list[str]) -> dict[str, str | None]:
    """Read `field=value` arguments; an empty value stands for the model's default.

    Raises:
        BadSettings: one is not of this form.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise BadSettings(f"{text} is not FIELD=VALUE", suggestions=('Write it like steps=20 or prompt="a cat".',))
        found[name.strip()] = value or None
    return found


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
        answers = _answers(client)
        if as_json or not out.is_terminal:
            _print_changes(answers, as_json=as_json)
            return
        answer = next(answers)
        with Live(_table(answer), console=out, auto_refresh=False) as live:
            for answer in answers:
                live.update(_table(answer), refresh=True)
        out.print(_summary(answer)[0], style="dim")


def _answers(client: ApiClient) -> Iterator[dict[str, Any]]:
    """Yield the queue at each change until nothing waits or runs; wait for a server that restarts."""
    for answer in client.states("/api/v1/queue", ("queue_updates", "generation_progress"), notify=notify):
        yield answer
        if not _is_busy(answer):
            return


def _print_changes(answers: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    """Print one line, or one JSON object, for each change of a task."""
    shown: dict[str, tuple[str, int]] = {}
    for answer in answers:
        for task in reversed(answer["tasks"]):
            mark = (task["status"], int(task["progress"]) // 10)
            if shown.get(task["id"]) != mark:
                shown[task["id"]] = mark
                line = f"{task['id'][:SHORT_ID]}  {task['status']:<10} {task['progress']:>3} %  {task['prompt']}"
                typer.echo(json.dumps(task, ensure_ascii=False) if as_json else line)


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
    counts = [f"{answer['pending_tasks']} waiting", f"{answer['processing_tasks']} running"]
    counts += [f"{answer['paused_tasks']} paused"] if answer["paused_tasks"] else []
    return [", ".join(counts), *sorted(waiting)]
