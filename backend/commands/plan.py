"""`wan22 plan`: what a video would take on this machine or on an imagined one, and the table of common cards.

Asks no server and opens no model but for headers; every number is an estimate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.terminal import out, own_home
from backend.core.catalogue.table import BUILT_IN, ModelSpec, find_model, models_in_force
from backend.core.config.file import ConfigFile
from backend.core.frame_size import parse_resolution
from backend.core.planning.constraints import OptimizationSettings, stored_optimization
from backend.core.planning.cost_model import Workload
from backend.core.planning.hardware import GIB, detect_hardware, in_gib
from backend.core.planning.machine import Machine
from backend.core.planning.optimizer import Decision, WAN22SystemOptimizer
from backend.core.settings import load_settings
from backend.models.folder.manager import ModelManager
from backend.services.planning.worker_machine import machine_as_it_looks

#: GB of VRAM -> a card of that size whose rate is known; without one there are no seconds.
_CARDS = {8: None, 12: None, 16: None, 24: "RTX 4090", 48: None, 80: "H100", 141: "H200"}
_RAM = (16, 32, 64, 128)
_IMAGINED = "an imagined card"
_TABLE_HEAD = """# The planner's table

What `WAN22SystemOptimizer` decides for the full-size models at their native size, steps and guidance. Made by
`wan22 plan --table`; a test compares it with the code. **Every number is estimated**: memory from structure and size,
seconds from published runs of that card. None of it was measured on such a machine; how good such numbers are on a
processor is in [memory.md](benchmarks/memory.md) and [seconds.md](benchmarks/seconds.md). A server learns from its
finished tasks: seconds of each phase, of loading, and memory.
A worker begins with the plan that is decided here, for the memory that is free on the card at that moment.
`wan22 plan MODEL --vram 24 --ram 64` answers for other sizes and machines.

A cell says: the memory plan (`tiled` = decoded in tiles, `text on CPU` = the text encoder works on the processor);
VRAM and RAM at the highest point, in GiB; seconds of a run with the model in memory, where a published run of such a
card is known. *No* names what would fit."""


def plan(
    model: Annotated[str | None, typer.Argument(help="A model; all of them when left out.")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Size [default: the model's own].")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames, 4k+1 [default: the model's own].")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps [default: the model's own].")] = None,
    vram: Annotated[
        float | None, typer.Option("--vram", min=0, help="GiB on an imagined card; 0 = none [default: this machine's].")
    ] = None,
    ram: Annotated[float | None, typer.Option("--ram", min=1, help="GiB of memory [default: this machine's].")] = None,
    card: Annotated[str | None, typer.Option("--card", help="Name of the card, for its speed, such as H100.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the table of common cards as Markdown.")] = False,
) -> None:
    """Say which memory plan a video would get, what it would take, and why."""
    if table:
        typer.echo(planner_table(), nl=False)
        return
    own_home()
    machine = _machine(vram, ram, card)
    out.print(escape(_in_words(machine)), style="dim")
    specs = [find_model(model)] if model else list(models_in_force().specs)
    imagined = any(option is not None for option in (vram, ram, card))
    constraints = OptimizationSettings() if imagined else _stored_constraints()
    optimizer, policy = WAN22SystemOptimizer(machine, constraints=constraints), load_settings().oom_policy
    models = ModelManager(load_settings().paths, has_gpu=machine.cuda)
    works = [replace(work_of(spec, size, frames, steps), packed=models.packed(spec)) for spec in specs]
    decisions = [optimizer.decide(work, policy) for work in works]
    for decision in decisions:
        out.print(escape(_answer(decision)), soft_wrap=True)
    if model is None:
        return
    out.print(_options(decisions[0]))
    if not decisions[0].fits:
        raise typer.Exit(1)


def work_of(spec: ModelSpec, size: str | None = None, frames: int | None = None, steps: int | None = None) -> Workload:
    """Return the work of a request to a model; what is left out is the model's own.

    Raises:
        InvalidRequest: the model cannot make this.
    """
    return Workload.native(spec, None if size is None else parse_resolution(size), frames, steps)


def _machine(vram: float | None, ram: float | None, card: str | None) -> Machine:
    settings = load_settings()
    profile = detect_hardware(settings.paths.root)
    here = machine_as_it_looks(settings, profile)
    memory = here.ram if ram is None else int(ram * GIB)
    if vram is None and card is None:
        return replace(here, ram=memory)
    if vram == 0:
        return Machine(profile.processor, False, None, memory, cores=here.cores)
    return Machine(card or _IMAGINED, True, here.vram if vram is None else int(vram * GIB), memory, cores=here.cores)


def _stored_constraints() -> OptimizationSettings:
    """Return the optimization settings of this home, which its server and workers obey."""
    return stored_optimization(ConfigFile(load_settings().paths.config_file)).current()


def _in_words(machine: Machine) -> str:
    device = f"{machine.name}, {in_gib(machine.vram)} VRAM" if machine.cuda else f"{machine.name} without a card"
    return f"{device}, {in_gib(machine.ram)} RAM; every number is estimated"


def _answer(decision: Decision) -> str:
    work, best = decision.work, decision.chosen
    if best is None:
        return f"{decision.reason}. {decision.would_fit}."
    time = f", about {best.seconds.warm:,.0f} s" if decision.seconds_known else ", seconds unknown for this card"
    return f"{work.model} at {_size(work)}: {decision.reason}{time}"


def _options(decision: Decision) -> Table:
    table = Table("plan", "tiled", "text on CPU", "VRAM", "RAM (pinned)", "seconds", "why", box=None)
    for option in decision.options:
        needs = option.needs
        table.add_row(
            option.plan.name,
            "yes" if option.plan.tiled_decode else "",
            "yes" if option.plan.text_encoder_on_cpu else "",
            in_gib(needs.vram),
            f"{in_gib(needs.ram)} ({in_gib(needs.pinned)})",
            f"{option.seconds.warm:,.0f}" if decision.seconds_known else "",
            escape("taken" if option is decision.chosen else option.reason),
            style="" if option.fits else "dim",
        )
    return table


def _size(work: Workload) -> str:
    return f"{work.width}x{work.height}, {work.num_frames} frames"


def planner_table() -> str:
    """Return docs/planner.md: the full-size models on common cards, as Markdown."""
    parts = [_TABLE_HEAD]
    for spec in BUILT_IN.specs:
        if spec.embedded:
            continue
        work = work_of(spec)
        parts.append(f"\n## {spec.id} at {_size(work)}, {spec.steps} steps (estimated)\n")
        parts.append("| VRAM | " + " | ".join(f"{ram} GB RAM" for ram in _RAM) + " |")
        parts.append("|---" * (len(_RAM) + 1) + "|")
        for vram, name in _CARDS.items():
            cells = [
                _cell(
                    WAN22SystemOptimizer(
                        Machine(name or _IMAGINED, True, vram * GIB, ram * GIB, compute_capability=(8, 9))
                    ).decide(work)
                )
                for ram in _RAM
            ]
            parts.append(f"| {vram} GB{f' ({name})' if name else ''} | " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _cell(decision: Decision) -> str:
    best = decision.chosen
    if best is None:
        return f"*No*: {decision.would_fit} (estimated)"
    switches = (("tiled", best.plan.tiled_decode), ("text on CPU", best.plan.text_encoder_on_cpu))
    extras = "".join(f", {word}" for word, on in switches if on)
    memory = f"{best.needs.vram / GIB:.1f} VRAM, {best.needs.ram / GIB:.1f} RAM"
    time = f"; {best.seconds.warm:,.0f} s" if decision.seconds_known else ""
    return f"**{best.plan.name}**{extras}: {memory}{time} (estimated)"
