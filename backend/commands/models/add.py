"""`wan22 models add`: adds a model of the user's own, from a folder, single files, or a repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands.console.terminal import JsonOption, err, out, own_home, print_json
from backend.core.catalogue.table import BUILT_IN
from backend.core.errors.surroundings import BadSettings
from backend.core.files import parse_json
from backend.core.planning.hardware import detect_hardware

if TYPE_CHECKING:
    from backend.commands.console.progress_bar import ShowBytes
    from backend.models.own.model_entry import ModelEntry


def add(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="Name of the model in requests.")],
    base: Annotated[str, typer.Option(help="The built-in model with the same structure, such as TI2V-5B.")],
    path: Annotated[
        Path | None,
        typer.Argument(help="Its folder in diffusers' layout, or the file of its only transformer.", exists=True),
    ] = None,
    high: Annotated[
        Path | None, typer.Option(help="The expert for high noise: safetensors, their index, or GGUF.", exists=True)
    ] = None,
    low: Annotated[
        Path | None, typer.Option(help="The expert for low noise, in the same formats.", exists=True)
    ] = None,
    part: Annotated[
        list[Path] | None,
        typer.Option(help="Its autoencoder or text encoder as a file; may be repeated.", exists=True),
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Its repository on the hub, instead of a folder.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    title: Annotated[str | None, typer.Option(help="Its name for display.")] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it; may be repeated.")] = None,
    default: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Its own default, such as steps=8; may be repeated.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files into the home folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a model of your own with the structure of a built-in one. A running server picks it up at once.

    Its files stay where they are. Single files are linked into one folder; missing parts are taken from installed
    models, or downloaded later.
    """
    from backend.commands.console.progress_bar import byte_bar
    from backend.models.folder.manager import ModelManager
    from backend.models.own.configuration import ModelConfigurationManager
    from backend.models.own.model_entry import ModelEntry
    from backend.models.own.registration import OwnModels

    home = own_home()
    models = ModelManager(home, has_gpu=bool(detect_hardware().gpus))
    own = OwnModels(home, ModelConfigurationManager(home))
    values: dict[str, object] = {
        "base": base,
        "repository": repository,
        "revision": revision,
        "title": title,
        "licence": licence,
        "aliases": alias or [],
        "defaults": dict(_setting(one) for one in default or []),
    }
    entry = ModelEntry.read({key: value for key, value in values.items() if value is not None})
    named = {"transformer": high, "transformer_2": low}
    if path is not None and path.is_file():
        named["transformer"] = _only_transformer(path, high, entry)
        path = None
    files = {component: file for component, file in named.items() if file is not None}
    if path is not None and (files or part):
        raise BadSettings("Give a folder or single files, not both", suggestions=("Leave one of them out.",))
    notes: tuple[str, ...] = ()
    if files or part:
        with byte_bar(err) as bar:
            reading = _Reading(bar)
            spec, notes = own.add_files(model_id, entry, files, part or [], models=models, copy=copy, on_read=reading)
    else:
        spec = own.add(model_id, entry, path, copy=copy)
    state = models.state(spec)
    if as_json:
        print_json({"model": spec.id, "structure": spec.structure, "status": str(state.presence), "notes": list(notes)})
        return
    for note in notes:
        out.print(note, highlight=False)
    out.print(f"{spec.id} is added, with the structure of {spec.structure}: {state.reason or 'ready'}", highlight=False)


class _Reading:
    """Shows how many bytes of the files were read."""

    def __init__(self, bar: ShowBytes) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, name: str, count: int) -> None:
        self._done += count
        self._bar(f"reading {name}", self._done, None)


def _only_transformer(path: Path, high: Path | None, entry: ModelEntry) -> Path:
    """Return the one file of a model with one transformer.

    Raises:
        BadSettings: the model has two, or the file was given twice.
    """
    if high is not None or BUILT_IN.find(entry.base or "").experts == 2:
        raise BadSettings(f"{entry.base} has two transformers", suggestions=("Give them with `--high` and `--low`.",))
    return path


def _setting(text: str) -> tuple[str, object]:
    """Read `KEY=VALUE`; a value that is not JSON is a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise BadSettings(f"--default {key}: say KEY=VALUE, such as steps=8", suggestions=("Correct the option.",))
    try:
        return key.strip(), parse_json(value)
    except ValueError:
        return key.strip(), value
