"""`wan22 loras`: the LoRAs of this machine. Works on the home folder; needs no running server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, check_file, err, out, own_home, print_json

if TYPE_CHECKING:
    from backend.models.lora.catalogue import Lora
    from backend.models.lora.library import LoraLibrary

app = typer.Typer(help="List, show, add, download and remove LoRAs.", no_args_is_help=True)

LoraId = Annotated[str, typer.Argument(help="Id of the LoRA, as listed.")]
_MIB = 1024**2


@app.command("list")
def list_loras(as_json: JsonOption = False) -> None:
    """List the LoRAs and the models they fit."""
    if as_json:
        print_json([_described(lora) for lora in _library().all()])
        return
    table = Table("id", "files", "fits", "MiB", "trigger words", box=None)
    problems = []
    for lora in _library().all():
        fits = ", ".join(lora.models) or ("[red]cannot be used[/]" if lora.problem else "no known model")
        kind = "high + low" if lora.is_pair else lora.files[0].expert or "both"
        words = escape(", ".join(lora.trigger_words))
        name = lora.id if lora.title == lora.id else f"{lora.id} ({lora.title})"
        table.add_row(escape(name), kind, fits, f"{lora.size_bytes / _MIB:.1f}", words)
        if lora.problem is not None:
            problems.append(f"{lora.id}: {lora.problem}")
    out.print(table)
    for problem in problems:
        out.print(escape(problem), style="red")


@app.command("show")
def show(lora_id: LoraId, as_json: JsonOption = False) -> None:
    """Show all details of a LoRA; always as JSON."""
    print_json(_described(_library().get(lora_id)))


@app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(help="Safetensors files; both files of a pair for two experts.")],
    name: Annotated[str | None, typer.Option(help="Keep it under another name.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Link the files instead of copying them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check LoRA files by their content, and copy or link them into the home folder."""
    for path in files:
        check_file(path, "FILES")
    library = _library()
    added = []
    for path in files:
        if link:
            lora = library.adopt(path, name)
        else:
            with path.open("rb") as stream:
                lora = library.add(stream, path.name, name)
        added.append(lora.id)
        fits = ", ".join(lora.models) or "no known model"
        if not as_json:
            out.print(f"{escape(lora.id)}: fits {fits}{'; complete pair' if lora.is_pair else ''}")
    if as_json:
        print_json([_described(library.get(one)) for one in dict.fromkeys(added)])


@app.command("fetch")
def fetch(
    lora_id: Annotated[str | None, typer.Argument(help="Name of a published LoRA; without it, list them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a well-known LoRA from the hub: four steps instead of forty for the A14B models."""
    from backend.commands.console.progress_bar import byte_bar
    from backend.models.download.hub import Hub
    from backend.models.lora.published import PUBLISHED_LORAS, LoraFetcher, published_lora

    if lora_id is None and as_json:
        print_json([asdict(one) for one in PUBLISHED_LORAS.values()])
        return
    if lora_id is None:
        table = Table("name", "what it is", "repository", "licence", box=None)
        for one in PUBLISHED_LORAS.values():
            table.add_row(one.id, one.title, one.repository, one.licence)
        out.print(table)
        return
    lora, home = published_lora(lora_id), own_home()
    with byte_bar(err) as bar:
        LoraFetcher(home, Hub()).fetch(lora, lambda name, done, total: bar(f"downloading {name}", done, total))
    if as_json:
        print_json({"installed": lora.id})
    else:
        out.print(f"{lora.id} is installed: use it with `--preset {lora.id}`", highlight=False)


@app.command("remove")
def remove(lora_id: LoraId, as_json: JsonOption = False) -> None:
    """Delete a LoRA's files; of a linked one, only the link."""
    _library().delete(lora_id)
    if as_json:
        print_json({"deleted": lora_id})
    else:
        out.print(f"{escape(lora_id)} was deleted")


def _library() -> LoraLibrary:
    from backend.models.lora.library import LoraLibrary

    return LoraLibrary(own_home())


def _described(lora: Lora) -> dict[str, object]:
    return {
        "id": lora.id,
        "title": lora.title,
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
