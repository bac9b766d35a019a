"""Shows a campaign in the terminal while it runs, and its result as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from benchmarks.chaos.campaign import Progress, Result, Size
from benchmarks.chaos.kills import PHASES, TARGETS
from benchmarks.home_server import machine

#: Without a screen, a line is printed after this many kills or tasks.
_LINE_EVERY = 10


@contextmanager
def shown(size: Size, console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows the progress: bars on a screen, lines elsewhere."""
    if not console.is_terminal:
        yield _lines(size, console)
        return
    columns = TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(), TimeElapsedColumn()
    with Bars(*columns, console=console) as bars:
        kills = bars.add_task("kills", total=size.kills)
        tasks = bars.add_task("tasks", total=size.tasks)

        def bar(progress: Progress) -> None:
            bars.update(kills, completed=progress.kills)
            bars.update(tasks, completed=progress.completed, description=progress.title)

        yield bar


def _lines(size: Size, console: Console) -> Callable[[Progress], None]:
    last: tuple[str, int, int] | None = None

    def line(progress: Progress) -> None:
        nonlocal last
        mark = progress.title, progress.kills // _LINE_EVERY, progress.completed // _LINE_EVERY
        if mark != last:
            last = mark
            figures = f"{progress.kills} of {size.kills} kills, {progress.completed} of {size.tasks} tasks"
            console.print(f"{datetime.now():%H:%M:%S}  {progress.title}: {figures}", highlight=False)

    return line


def to_json(result: Result) -> dict[str, Any]:
    """Return the result as plain JSON values."""
    targets = Counter(kill.target for kill in result.kills)
    phases = Counter(kill.phase for kill in result.kills)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "asked": asdict(result.size),
        "tasks_by_mode": Counter(result.modes),
        "kills": len(result.kills),
        "kills_by_target": {target: targets[target] for target in TARGETS},
        "kills_by_phase": {phase: phases[phase] for phase in PHASES},
        "lost_attempts": result.lost_attempts,
        "unanswered_calls": result.unanswered_calls,
        "steps": asdict(result.steps) | {"share": round(result.steps.share, 4)},
        "seconds": {"undisturbed": round(result.undisturbed_seconds), "disturbed": round(result.disturbed_seconds)},
        "broken": result.broken,
    }


def print_result(values: dict[str, Any], console: Console) -> None:
    """Print what `to_json` returned."""
    table = Table("figure", "value", title=f"Chaos, seed {values['asked']['seed']}")
    rows = {
        "machine": values["machine"],
        "tasks": f"{values['asked']['tasks']}: {_listed(values['tasks_by_mode'])}",
        "kills": f"{values['kills']} of {values['asked']['kills']}: {_listed(values['kills_by_target'])}",
        "met": _listed(values["kills_by_phase"]),
        "lost attempts": str(values["lost_attempts"]),
        "unanswered calls": str(values["unanswered_calls"]),
        "steps": f"{values['steps']['needed']} needed, {values['steps']['repeated']} repeated "
        f"({values['steps']['share']:.1%}), {values['steps']['interrupted']} interrupted",
        "seconds": _listed(values["seconds"]),
        "promises": "all kept" if not values["broken"] else f"{len(values['broken'])} broken",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for sentence in values["broken"]:
        console.print(f"broken: {sentence}", style="red", markup=False)


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
