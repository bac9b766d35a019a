"""Progress of tasks and bytes in the terminal: a live bar where there is a screen, plain lines where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

#: Without a screen a line is printed at each new stage and at each tenth of the way.
LINE_EVERY = 10  # percent


def follow_with_bar(tasks: Iterable[dict[str, Any]], console: Console, label: str = "") -> dict[str, Any]:
    """Show every state of the task until the stream ends, prefixed with `label`; return the last one."""
    return _bar(tasks, console, label) if console.is_terminal else _lines(tasks, console, label)


def _bar(tasks: Iterable[dict[str, Any]], console: Console, label: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[eta]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        bar = progress.add_task(f"{label}waiting", total=100, eta="")
        for last in tasks:
            text = escape(label + _describe(last))
            progress.update(bar, completed=_percent(last), description=text, eta=_eta(last))
    return last


def _lines(tasks: Iterable[dict[str, Any]], console: Console, label: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    shown: tuple[str, int] | None = None
    for last in tasks:
        mark = (str(last.get("stage") or last["status"]), int(_percent(last)) // LINE_EVERY)
        if mark != shown:
            shown = mark
            line = f"{label}{_percent(last):5.1f} %  {_describe(last)}  {_eta(last)}".rstrip()
            console.print(line, highlight=False, markup=False)
    return last


def _percent(task: dict[str, Any]) -> float:
    return float(task.get("progress_percent", task["progress"]))


def _describe(task: dict[str, Any]) -> str:
    if task["status"] == "pending":
        if task.get("message"):
            return f"waiting. {task['message']}"
        position = task.get("queue_position")
        return f"waiting, number {position} in the queue" if position else "waiting"
    return str(task.get("message") or task.get("stage") or task["status"])


def _eta(task: dict[str, Any]) -> str:
    seconds = task.get("estimated_time_remaining")
    return f"about {seconds:.0f} s left" if seconds and task["status"] == "processing" else ""


class ShowBytes(Protocol):
    """Shows progress in bytes; unknown values are None."""

    def __call__(
        self, label: str, done: int, total: int | None, speed: float | None = None, eta: float | None = None
    ) -> None:
        """Show it; `speed` in bytes per second, `eta` in seconds."""


@contextmanager
def byte_bar(console: Console) -> Iterator[ShowBytes]:
    """Yield a function that shows progress in bytes while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), TextColumn("[dim]{task.fields[figures]}"))
    if console.is_terminal:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=None, figures="")

            def show(
                label: str, done: int, total: int | None, speed: float | None = None, eta: float | None = None
            ) -> None:
                figures = _figures(done, total, speed, eta)
                progress.update(bar, description=escape(label), completed=done, total=total, figures=figures)

            yield show
        return
    shown: tuple[str, int] | None = None

    def line(label: str, done: int, total: int | None, speed: float | None = None, eta: float | None = None) -> None:
        nonlocal shown
        mark = (label.partition(" ")[0], done * LINE_EVERY // total if total else 0)
        if mark != shown:
            shown = mark
            console.print(f"{label}  {_figures(done, total, speed, eta)}", highlight=False, markup=False)

    yield line


def _figures(done: int, total: int | None, speed: float | None, eta: float | None) -> str:
    parts = [f"{done / 1e6:,.1f} MB" if total is None else f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"]
    if speed is not None:
        parts.append(f"{speed / 1e6:,.1f} MB/s")
    if eta is not None:
        minutes, seconds = divmod(round(eta), 60)
        parts.append(f"about {minutes}:{seconds:02} min left")
    return ", ".join(parts)
