"""`wan22 models adopt`: lists the model files of other programs on this machine, and uses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, err, only_json_on_stdout, out, print_json
from backend.core.catalogue.table import find_model
from backend.core.errors.base import WanError
from backend.core.errors.lookups import LoraExists
from backend.core.errors.requests import LoraInvalid, LoraNotFound
from backend.core.planning.hardware import detect_hardware
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.core.paths import Home
    from backend.models.adoption.plans import Plan
    from backend.models.adoption.structure import Recognised
    from backend.models.adoption.survey import Survey

_GB = 1e9


def adopt(
    roots: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Search this folder too; it is only read. ComfyUI's folder, or its extra_model_paths.yaml, leads to "
            "the folders named there.",
        ),
    ] = None,
    use: Annotated[
        list[str] | None, typer.Option("--use", help="Name the use of a file: MODEL/COMPONENT=FILE. May be repeated.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Adopt this model even if its transformers still have to be downloaded."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what was found and change nothing.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy a model's files instead of linking them.")] = False,
    loras: Annotated[bool, typer.Option(help="Also link the LoRAs that fit a supported model.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Use models and LoRAs of the Hugging Face cache, ComfyUI, Wan2GP and other folders without copying them."""
    from backend.models.adoption.plans import parse_choices, plans
    from backend.models.adoption.survey import scan_folders, usual_roots
    from backend.models.download.local_files import hugging_face_cache
    from backend.models.folder.manager import ModelManager

    with only_json_on_stdout(as_json):
        settings = load_settings()
        home = settings.paths.create()
        choices = parse_choices(use or [])
        asked = {find_model(name).id for name in model or []} | {choice.model for choice in choices}
        given = [root.expanduser().absolute() for root in (*(roots or []), *settings.model_roots)]
        usual = [root for root in (hugging_face_cache(), *usual_roots(_account_home())) if root.exists()]
        survey = scan_folders([*usual, *given, *choices.values()])
        _show_files(survey)
        made = plans(survey, ModelManager(home, has_gpu=bool(detect_hardware().gpus)), choices)
        _show_plans(made)
        for plan in made:
            if plan.presence in ("partial", "corrupted") and plan.parts.files:
                name = plan.spec.id
                out.print(
                    f"{name}: wan22 models download {name} resumes the download and links the files found", markup=False
                )
        if loras:
            _adopt_loras(home, survey, dry_run=dry_run)
        failures: list[WanError] = []
        for plan in made:
            if not dry_run and (plan.worthwhile or (plan.spec.id in asked and plan.parts.files)):
                try:
                    _adopt(home, plan, copy=copy)
                except WanError as error:
                    failures.append(error)
    if as_json:
        manager = ModelManager(home, has_gpu=False)
        print_json(
            [
                {
                    "model": plan.spec.id,
                    "status": str(manager.state(plan.spec).presence),
                    "found_bytes": plan.size_bytes,
                    "missing": list(plan.lacking),
                }
                for plan in made
            ]
        )
    if failures:
        raise failures[0]


def _account_home() -> Path:
    """Return the folder of the user's account, where other programs keep their files; one without it has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def _adopt(home: Home, plan: Plan, *, copy: bool) -> None:
    from backend.commands.console.progress_bar import byte_bar
    from backend.models.adoption.assembly import assemble
    from backend.models.download.linking import Link

    done = 0
    with byte_bar(err) as bar:

        def on_read(name: str, count: int) -> None:
            nonlocal done
            done += count
            bar(f"verifying {name}", done, plan.size_bytes)

        result = assemble(home, plan.spec, plan.parts, copy=copy, on_read=on_read)
    name = plan.spec.id
    for refused in result.refused:
        out.print(f"{name}: {_clean(refused)} does not match its checksum in the cache and was skipped", markup=False)
    symbolic = sum(link is Link.SYMBOLIC for link in result.links.values())
    if symbolic:
        out.print(f"{name}: {symbolic} files are on another disk and only linked; do not delete them", markup=False)
    saved = f"{result.spared_bytes / _GB:,.2f} GB were neither downloaded nor copied"
    if result.complete:
        out.print(f"{name} is adopted and verified; {saved}", markup=False)
    else:
        out.print(f"{name} is partly adopted; {saved}. The rest: wan22 models download {name}", markup=False)


def _adopt_loras(home: Home, survey: Survey, *, dry_run: bool) -> None:
    """Link the LoRAs that are not in the library yet; a rejected one does not stop the others."""
    from backend.models.adoption.structure import Kind
    from backend.models.lora.library import LoraLibrary

    library = LoraLibrary(home)
    for path in (found.path for found in survey.weights if found.kind is Kind.LORA):
        file = library.inspect(path)
        if file is None or library.has(path):
            continue
        if not file.models:
            out.print(f"LoRA {_clean(path.name)} fits no supported model. {file.problem or ''}".rstrip(), markup=False)
            continue
        if dry_run:
            out.print(f"LoRA {_clean(path.name)} would be linked; it fits {', '.join(file.models)}", markup=False)
            continue
        try:
            lora = library.adopt(path)
        except (LoraInvalid, LoraExists, LoraNotFound) as error:
            out.print(f"LoRA {_clean(path.name)} was left out. {error.message}", markup=False)
            continue
        away = any(one.path.is_symlink() for one in lora.files)
        where = "is on another disk and only linked; do not delete it" if away else "is linked"
        out.print(f"LoRA {lora.id}: {_clean(path.name)} {where}; it fits {', '.join(lora.models)}", markup=False)


def _show_files(survey: Survey) -> None:
    from backend.models.adoption.survey import unusable

    table = Table(box=None)
    for title in ("file", "what it is", "numbers", "GB", "used for", "note"):
        table.add_column(title, overflow="fold")
    for model, parts in survey.snapshots.items():
        size = sum(part.source.stat().st_size for part in parts.files) / _GB
        table.add_row(parts.repository, "published folder", "", f"{size:,.2f}", model, f"revision {parts.commit[:12]}")
    others = 0
    for found in survey.weights:
        if unusable(found) and not _worth_a_line(found):
            others += 1
            continue
        what = " or ".join(identity.name for identity in found.identities) or found.kind.value
        uses = ", ".join(f"{use.model}/{use.component}" for use in found.uses)
        numbers = found.precision[0] if found.precision else ""
        # The user has to name an ambiguous file by its full path; the others are named again where they are used.
        name = str(found.path) if found.ambiguous else "/".join(found.path.parts[-2:])
        row = (_clean(name), what, numbers, f"{found.size / _GB:,.2f}", uses, _note(found))
        table.add_row(*(escape(text) for text in row))
    if table.row_count:
        out.print(table)
    if others:
        out.print(f"{others} other files are not used")
    for folder in survey.unreadable:
        out.print(f"The folder {_clean(str(folder))} cannot be read", markup=False)
    for note in survey.notes:
        out.print(_clean(note), markup=False, highlight=False, soft_wrap=True)
    if survey.cut_short:
        out.print("The folders hold too many files to search; name the exact folder with --from")


def _worth_a_line(found: Recognised) -> bool:
    from backend.models.adoption.structure import Kind

    return found.kind in (Kind.LORA, Kind.UNSUPPORTED) or "wan" in found.path.name.lower() or bool(found.identities)


def _note(found: Recognised) -> str:
    if found.ambiguous:
        return f"{found.note}; choose with --use"
    return found.note


def _show_plans(plans: list[Plan]) -> None:
    table = Table("model", "status", "GB found", "missing", box=None)
    for plan in plans:
        lacking = ", ".join(plan.lacking) if plan.parts.files else "everything"
        table.add_row(plan.spec.id, str(plan.presence), f"{plan.size_bytes / _GB:,.2f}", lacking or "nothing")
    out.print(table)
    for plan in plans:
        if plan.parts.repository or plan.presence != "missing":
            continue
        for part in plan.parts.files:
            component = part.name.partition("/")[0]
            rivals = plan.rivals.get(component)
            more = f" (one of {rivals} files that fit; --use takes another)" if rivals else ""
            line = f"{plan.spec.id}/{component} <- {_clean(str(part.source))}{more}"
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        if plan.question:
            name = plan.spec.id
            choice = f"choose both with --use {name}/transformer=FILE --use {name}/transformer_2=FILE"
            line = f"{name}: {_clean(plan.question)}; {choice}"
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _clean(text: str) -> str:
    """Make a foreign name fit one line of a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
