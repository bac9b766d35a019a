"""`wan22 loras`: the LoRAs of this machine. Works on the home folder itself, so no server has to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.terminal import check_file, out, own_home

if TYPE_CHECKING:
    from backend.models.lora.library import Lora, LoraLibrary

app = typer.Typer(help="List, add, remove and look at LoRAs.", no_args_is_help=True)

LoraId = Annotated[str, typer.Argument(help="Id of the LoRA, as the list has it.")]
_MIB = 1024**2


@app.command("list")
def list_loras() -> None:
    """List the LoRAs and the models that they fit."""
    table = Table("id", "files", "fits", "MiB", "trigger words", box=None)
    problems = []
    for lora in _library().all():
        fits = ", ".join(lora.models) or ("[red]cannot be used[/]" if lora.problem else "no model of ours")
        kind = "high + low" if lora.is_pair else lora.files[0].expert or "both"
        words = escape(", ".join(lora.trigger_words))
        table.add_row(escape(lora.id), kind, fits, f"{lora.size_bytes / _MIB:.1f}", words)
        if lora.problem is not None:
            problems.append(f"{lora.id}: {lora.problem}")
    out.print(table)
    for problem in problems:
        out.print(escape(problem), style="red")


@app.command("show")
def show(lora_id: LoraId) -> None:
    """Show everything that is known of a LoRA, as JSON."""
    out.print_json(json.dumps(_described(_library().get(lora_id))))


@app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(help="Safetensors files; both of a pair for two experts.")],
    name: Annotated[str | None, typer.Option(help="Keep it under another name.")] = None,
) -> None:
    """Check LoRA files by their content and copy them into the home folder."""
    for path in files:
        check_file(path, "FILES")
    library = _library()
    for path in files:
        with path.open("rb") as stream:
            lora = library.add(stream, path.name, name)
        fits = ", ".join(lora.models) or "no model of ours"
        out.print(f"{escape(lora.id)}: fits {fits}{'; complete pair' if lora.is_pair else ''}")


@app.command("remove")
def remove(lora_id: LoraId) -> None:
    """Delete a LoRA's files, both of a pair."""
    _library().delete(lora_id)
    out.print(f"{escape(lora_id)} was deleted")


def _library() -> LoraLibrary:
    from backend.models.lora.library import LoraLibrary

    return LoraLibrary(own_home())


def _described(lora: Lora) -> dict[str, object]:
    return {
        "id": lora.id,
        "fits": list(lora.models),
        "made_for": list(lora.bases),
        "problem": lora.problem,
        "trigger_words": list(lora.trigger_words),
        "preset": None if lora.preset is None else lora.preset.values(),
        "ships_with_wan22": lora.embedded,
        "files": [
            {
                "name": file.name,
                "expert": file.expert,
                "decided_by": file.decided_by,
                "format": file.format,
                "ranks": list(file.ranks),
                "tensors": file.tensors,
                "bytes": file.size_bytes,
            }
            for file in lora.files
        ],
    }
