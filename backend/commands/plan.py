"""`wan22 plan`: memory and time of a video on this machine or an imagined one, and the table of common cards.

Needs no server and reads at most the headers of weight files; every number is an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, finite, out, own_home, print_json
from backend.core.catalogue.table import BUILT_IN, ModelSpec, find_model, models_in_force
from backend.core.config.file import ConfigFile
from backend.core.planning.constraints import OptimizationSettings, stored_optimization
from backend.core.planning.cost_model import Workload
from backend.core.planning.hardware import GIB, detect_hardware, in_gib
from backend.core.planning.machine import Machine
from backend.core.planning.optimizer import Decision, Option, WAN22SystemOptimizer
from backend.core.requests.frame_size import parse_resolution
from backend.core.settings import load_settings
from backend.models.folder.manager import ModelManager
from backend.services.planning.worker_machine import machine_as_it_looks

#: GB of VRAM -> a card of that size whose speed is known; without one there are no times.
_CARDS = {8: None, 12: None, 16: None, 24: "RTX 4090", 48: None, 80: "H100", 141: "H200"}
_RAM = (16, 32, 64, 128)
#: GB of VRAM and of RAM in the overview.
_OVERVIEW_CARDS, _OVERVIEW_RAM = (8, 12, 16, 24, 48, 80), 64
_IMAGINED = "an imagined card"
_MOST_VRAM, _MOST_RAM = 4096, 65536  # GiB
_INTRODUCTION = """# Which model fits which card

What the planner decides for every full-size model at its native size, steps and guidance. All numbers on this page are
estimated: memory from the model's structure and the size of the clip, times from published runs of that card, with the
model already in memory. None was measured on such a machine; how close these estimates come on a processor is in
[memory.md](benchmarks/memory.md) and [seconds.md](benchmarks/seconds.md). A server replaces them with the times of its
own finished tasks, and its worker plans with the memory that is free on the card at that moment.

`wan22 plan MODEL --vram 24 --ram 64` answers for other sizes and machines. This page is the output of
`wan22 plan --table`.

## Overview: cards in a machine with {ram} GB of RAM

{overview}

- **resident**: all weights stay on the card. **expert-swap**: one of the two experts is on the card, the other in RAM.
  **block-stream**: a few blocks are on the card at a time, all others in RAM.
- **bf16** keeps full precision; **fp8** rounds the weights to 8 bits.
- Where a clip of this size does not fit, the cell names what does. A card without a time has no published run."""
_DETAILS = """
VRAM and RAM are the peak of a run, in GiB; *tiled*: decoded in overlapping tiles; *text on CPU*: the processor encodes
the prompt."""


def plan(
    model: Annotated[str | None, typer.Argument(help="A model [default: all models].")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Size [default: the model's own].")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames, 4k+1 [default: the model's own].")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps [default: the model's own].")] = None,
    vram: Annotated[
        float | None,
        typer.Option(
            "--vram",
            min=0,
            max=_MOST_VRAM,
            callback=finite,
            help="VRAM of an imagined card in GiB; 0 = no card [default: this machine's].",
        ),
    ] = None,
    ram: Annotated[
        float | None,
        typer.Option("--ram", min=1, max=_MOST_RAM, callback=finite, help="RAM in GiB [default: this machine's]."),
    ] = None,
    card: Annotated[
        str | None, typer.Option("--card", help="Name of the card, which sets its speed, such as H100.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every plan, or every model, with its reason.")] = False,
    as_json: JsonOption = False,
    table: Annotated[bool, typer.Option("--table", help="Print docs/planner.md, the table of common cards.")] = False,
) -> None:
    """Show in five lines what a video takes on this machine: its memory plan, memory and time, and why.

    Exit status 1 if the named model cannot make it here.
    """
    if table:
        typer.echo(planner_table(), nl=False)
        return
    own_home()
    machine = _machine(vram, ram, card)
    specs = [find_model(model)] if model else list(models_in_force().specs)
    imagined = any(option is not None for option in (vram, ram, card))
    constraints = OptimizationSettings() if imagined else _stored_constraints()
    optimizer, policy = WAN22SystemOptimizer(machine, constraints=constraints), load_settings().oom_policy
    models = ModelManager(load_settings().paths, has_gpu=machine.cuda)
    works = [replace(work_of(spec, size, frames, steps), packed=models.packed(spec)) for spec in specs]
    decisions = [optimizer.decide(work, policy) for work in works]
    installed = {spec.id for spec in specs if models.state(spec).available}
    if as_json:
        print_json([_described(decision, installed) for decision in decisions])
    else:
        out.print(escape(_in_words(machine)), style="dim", soft_wrap=True)
        if every:
            lines = [_answer(decision) for decision in decisions]
        else:
            lines = _overview(decisions, installed) if model is None else _brief_answer(decisions[0], installed)
        for line in lines:
            out.print(escape(line), highlight=False, soft_wrap=True)
        if every and model is not None:
            out.print(_options(decisions[0]))
    if model is not None and not decisions[0].fits:
        raise typer.Exit(1)


def work_of(spec: ModelSpec, size: str | None = None, frames: int | None = None, steps: int | None = None) -> Workload:
    """Return the workload of a request; what is None gets the model's default.

    Raises:
        InvalidRequest: the model cannot make such a clip.
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
    """Return the optimization settings of this home, which also apply to its server and workers."""
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


def _overview(decisions: list[Decision], installed: set[str]) -> list[str]:
    """Return four lines about all models: what can be used now, after a download, and not here."""

    def named(chosen: list[Decision]) -> str:
        return ", ".join(decision.work.model + _about(decision) for decision in chosen) or "none"

    fitting = [decision for decision in decisions if decision.fits]
    return [
        f"ready: {named([one for one in fitting if one.work.model in installed])}",
        f"fits, after a download: {named([one for one in fitting if one.work.model not in installed])}",
        f"does not fit: {', '.join(one.work.model for one in decisions if not one.fits) or 'none'}",
        "`wan22 plan MODEL` explains one of them, `wan22 plan --all` all of them.",
    ]


def _brief_answer(decision: Decision, installed: set[str]) -> list[str]:
    """Return four lines about one model."""
    best, model = decision.chosen, decision.work.model
    where = "installed" if model in installed else f"not installed: `wan22 models download {model}`"
    more = f"`wan22 plan {model} --all` lists every plan with its reason."
    if best is None:
        return [f"{decision.reason}.", f"{decision.would_fit}.", f"{model} is {where}", more]
    tiled = ", decoded in tiles" if best.plan.tiled_decode else ""
    memory = f"{in_gib(best.needs.vram)} VRAM, " if decision.machine.cuda else ""
    return [
        _answer(decision),
        f"plan {best.name}{tiled}: {memory}{in_gib(best.needs.ram)} RAM",
        f"{model} is {where}",
        more,
    ]


def _about(decision: Decision) -> str:
    return f" (about {_time(decision.chosen)})" if decision.chosen is not None and decision.seconds_known else ""


def _described(decision: Decision, installed: set[str]) -> dict[str, object]:
    """Return a decision for programs; what is unknown is null."""
    best, work = decision.chosen, decision.work
    return {
        "model": work.model,
        "installed": work.model in installed,
        "resolution": f"{work.width}x{work.height}",
        "num_frames": work.num_frames,
        "fits": decision.fits,
        "reason": decision.reason,
        "would_fit": None if decision.fits else decision.would_fit,
        "plan": None if best is None else best.name,
        "vram_bytes": None if best is None or not decision.machine.cuda else best.needs.vram,
        "ram_bytes": None if best is None else best.needs.ram,
        "seconds": round(best.seconds.warm, 1) if best is not None and decision.seconds_known else None,
    }


def _options(decision: Decision) -> Table:
    table = Table("plan", "tiled", "text on CPU", "VRAM", "RAM (pinned)", "seconds", "why", box=None)
    for option in decision.options:
        needs = option.needs
        table.add_row(
            option.name,
            "yes" if option.plan.tiled_decode else "",
            "yes" if option.plan.text_encoder_on_cpu else "",
            in_gib(needs.vram) if decision.machine.cuda else "",
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
    parts = [_INTRODUCTION.format(ram=_OVERVIEW_RAM, overview=overview_table()), _DETAILS]
    for spec in _full_size():
        parts.append(f"\n## {spec.id} at {_size(work_of(spec))}, {spec.steps} steps\n")
        columns = {ram: [_cell(_on_card(spec, vram, ram)) for vram in _CARDS] for ram in _RAM}
        # Memories that change nothing share a column.
        groups = [list(rams) for _, rams in groupby(_RAM, columns.__getitem__)]
        rams = [f"{group[0]}{f' to {group[-1]}' if len(group) > 1 else ''} GB RAM" for group in groups]
        parts.append(
            _markdown(["VRAM", *rams], zip(map(_card, _CARDS), *(columns[group[0]] for group in groups), strict=True))
        )
    return "\n".join(parts) + "\n"


def overview_table() -> str:
    """Return the plan and the time of every full-size model on common cards, as a Markdown table."""
    rows = (
        [f"{spec.id}, {_size(work_of(spec))}"]
        + [_brief(_on_card(spec, vram, _OVERVIEW_RAM)) for vram in _OVERVIEW_CARDS]
        for spec in _full_size()
    )
    return _markdown(["Model", *map(_card, _OVERVIEW_CARDS)], rows)


def _full_size() -> list[ModelSpec]:
    return [spec for spec in BUILT_IN.specs if not spec.embedded]


def _on_card(spec: ModelSpec, vram: int, ram: int) -> Decision:
    machine = Machine(_CARDS[vram] or _IMAGINED, True, vram * GIB, ram * GIB, compute_capability=(8, 9))
    return WAN22SystemOptimizer(machine).decide(work_of(spec))


def _card(vram: int) -> str:
    name = _CARDS[vram]
    return f"{vram} GB ({name})" if name else f"{vram} GB"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _brief(decision: Decision) -> str:
    if decision.chosen is None:
        return _no(decision)
    return decision.chosen.name + (f", {_time(decision.chosen)}" if decision.seconds_known else "")


def _no(decision: Decision) -> str:
    """Name what would fit: the size alone where it is the same model."""
    instead = decision.instead
    if instead is None:
        return "*no*"
    return f"*no*; {'' if instead.spec == decision.work.spec else f'{instead.model} '}{_size(instead)}"


def _time(option: Option) -> str:
    seconds = option.seconds.warm
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _cell(decision: Decision) -> str:
    best = decision.chosen
    if best is None:
        return _no(decision)
    switches = (("tiled", best.plan.tiled_decode), ("text on CPU", best.plan.text_encoder_on_cpu))
    extras = "".join(f", {word}" for word, on in switches if on)
    memory = f"{best.needs.vram / GIB:.1f} VRAM, {best.needs.ram / GIB:.1f} RAM"
    return f"**{best.name}**{extras}: {memory}" + (f"; {_time(best)}" if decision.seconds_known else "")
