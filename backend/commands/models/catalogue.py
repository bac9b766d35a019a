"""`wan22 models`: lists, downloads, verifies and removes models. Works on the home folder; needs no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, err, finite, out, own_database, own_home, own_need, print_json
from backend.commands.models.add import add
from backend.commands.models.adopt import adopt
from backend.commands.models.cleanup import cleanup
from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.errors.interruptions import DownloadStopped
from backend.core.errors.models import ModelDamaged
from backend.core.errors.requests import UnknownModel
from backend.core.paths import Home
from backend.core.planning.hardware import detect_hardware
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.commands.console.progress_bar import ShowBytes
    from backend.core.domain import DownloadProgress, OnProgress
    from backend.models.download.downloader import ModelDownloader
    from backend.models.folder.integrity import FileFinding
    from backend.models.folder.manager import ModelManager, ModelState

app = typer.Typer(help="List, add, download, adopt, verify and remove models.", no_args_is_help=True)
app.command("add")(add)

Name = Annotated[str, typer.Argument(help="Name of the model, as in the list.")]
Limit = Annotated[
    float | None, typer.Option("--limit", min=0.01, callback=finite, help="Speed limit in MB per second.")
]
_MB = 1e6

app.command("adopt")(adopt)
app.command("cleanup")(cleanup)


@app.command("list")
def list_models(
    every: Annotated[bool, typer.Option("--all", help="List the models that cannot be used yet, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that can be used, and name the others."""
    states = _manager(own_home()).states()
    if as_json:
        print_json([_described(state) for state in states])
        return
    shown = sorted((state for state in states if every or state.available), key=lambda state: not state.available)
    table = Table("name", "input", "status", "MB on disk", *(["why not"] if every else []), box=None)
    for state in shown:
        images = "image and text" if state.spec.needs_image else "text, optional image"
        sources = images if state.spec.takes_image else "text"
        size = f"{state.size_bytes / _MB:,.1f}" if state.size_bytes else ""
        colour = "green" if state.available else "yellow"
        reason = [escape(state.reason or "")] if every else []
        table.add_row(state.spec.id, sources, f"[{colour}]{state.presence}[/]", size, *reason)
    out.print(table)
    others = [state.spec.id + _progress(state) for state in states if state not in shown]
    if others:
        out.print(f"not installed: {', '.join(others)}", highlight=False, soft_wrap=True)
        out.print("`wan22 models download NAME` installs one; --all says why each cannot be used.", style="dim")


def _progress(state: ModelState) -> str:
    """Return a remark about a model that is neither usable nor simply missing."""
    return "" if state.presence == "missing" else f" ({state.presence})"


@app.command("show")
def show(name: Name, as_json: JsonOption = False) -> None:
    """Show a model and its files; always as JSON."""
    home = own_home()
    print_json(_described(_manager(home).state(find_model(name))))


@app.command("download")
def download(
    name: Name,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    limit: Limit = None,
    as_json: JsonOption = False,
) -> None:
    """Download a model, or its missing files. Can be stopped at any time; the next call resumes it."""
    from backend.commands.console.progress_bar import byte_bar

    home, spec = own_home(), find_model(name)
    downloader = _downloader(home, limit)
    try:
        with byte_bar(err) as bar:
            downloader.download(spec, on_progress=_shown(bar), revision=revision)
    except KeyboardInterrupt:
        raise DownloadStopped from None
    if as_json:
        print_json({"model": spec.id, "status": "available"})
    else:
        out.print(f"{spec.id} is complete and verified")


@app.command("verify")
def verify(
    name: Name,
    quick: Annotated[bool, typer.Option("--quick", help="Check sizes and headers only.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Download only the damaged files again.")] = False,
    limit: Limit = None,
    as_json: JsonOption = False,
) -> None:
    """Check a model's files against what was downloaded, without the network."""
    from backend.commands.console.progress_bar import byte_bar
    from backend.models.folder.integrity import FileState

    home, spec = own_home(), find_model(name)
    findings = _examined(home, spec, quick=quick)
    wrong = [finding for finding in findings if finding.state is not FileState.OK]
    if as_json:
        files = [{"name": finding.name, "state": str(finding.state)} for finding in findings]
        print_json({"model": spec.id, "checked": "sizes" if quick else "contents", "files": files})
    for finding in [] if as_json else wrong:
        out.print(f"{finding.name}: {finding.state}", markup=False, highlight=False)
    if not wrong:
        if findings and not as_json:
            out.print(f"{spec.id}: all {len(findings)} files are {'present' if quick else 'intact'}")
        return
    if not repair:
        raise ModelDamaged(
            f"{spec.id} is damaged: {len(wrong)} of {len(findings)} files are damaged",
            suggestions=(f"Run `wan22 models verify {spec.id} --repair`: only these files are downloaded again.",),
        )
    try:
        with byte_bar(err) as bar:
            _downloader(home, limit).repair(spec, wrong, on_progress=_shown(bar))
    except KeyboardInterrupt:
        raise DownloadStopped from None
    if not as_json:
        out.print(f"{spec.id} is repaired")


@app.command("remove")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a model's files, unfinished ones included; a model of your own is unregistered, and its folder stays.

    A model that a task needs or a worker has loaded is not removed. Safe while a server runs.
    """
    from backend.models.folder.storage import remove_model
    from backend.models.own.configuration import ModelConfigurationManager
    from backend.models.own.registration import OwnModels

    home = own_home()
    try:
        spec = find_model(name)
    except UnknownModel:
        configuration = ModelConfigurationManager(home)
        if not configuration.has(name):
            raise
        configuration.remove(name)  # an entry that was ignored because it is invalid
        if as_json:
            print_json({"removed": name, "freed_bytes": 0})
        else:
            out.print("The entry was removed from config.json")
        return
    if not (yes or spec.embedded):
        what = f"Unregister {spec.id}" if spec.folder else f"Delete the files of {spec.id}"
        typer.confirm(f"{what}?", abort=True, err=True)
    own = OwnModels(home, ModelConfigurationManager(home))
    with own_database() as database, own_need(home, database).exclusive(spec):
        freed = remove_model(home, spec) if spec.base is None else own.remove(spec)
    if as_json:
        print_json({"removed": spec.id, "freed_bytes": freed})
    else:
        out.print(f"{spec.id} was removed, {freed / _MB:,.1f} MB were freed")


def _manager(home: Home) -> ModelManager:
    from backend.models.folder.manager import ModelManager

    return ModelManager(home, has_gpu=bool(detect_hardware().gpus))


def _downloader(home: Home, limit: float | None) -> ModelDownloader:
    from backend.models.download.downloader import downloader_into

    speed = None if limit is None else limit * _MB
    return downloader_into(home, _manager(home), load_settings().model_roots, bytes_per_second=speed)


def _shown(bar: ShowBytes) -> OnProgress:
    def on_progress(progress: DownloadProgress) -> None:
        label = f"{progress.phase} {progress.file or ''}".rstrip()
        bar(label, progress.done_bytes, progress.total_bytes, progress.speed, progress.eta_seconds)

    return on_progress


def _examined(home: Home, spec: ModelSpec, *, quick: bool) -> list[FileFinding]:
    """Check the files of a model; returns nothing for a complete folder that was not downloaded by wan22."""
    from backend.commands.console.progress_bar import byte_bar
    from backend.models.folder.integrity import check_full, check_quick
    from backend.models.folder.manifest import read_manifest

    manager = _manager(home)
    folder = manager.state(spec).folder
    manifest = read_manifest(folder)
    if manifest is None:
        manager.folder(spec)  # raises: explains what is wrong
        err.print(
            f"{spec.id} was not downloaded by wan22: all files are present, but there are no checksums to compare with"
        )
        return []
    if quick:
        return check_quick(folder, manifest)
    done = 0
    with byte_bar(err) as bar:

        def on_read(name: str, count: int) -> None:
            nonlocal done
            done += count
            bar(f"verifying {name}", done, manifest.size_bytes)

        return check_full(folder, manifest, on_read)


def _described(state: ModelState) -> dict[str, object]:
    from backend.models.folder.manifest import read_manifest

    spec, manifest = state.spec, read_manifest(state.folder)
    return {
        "id": spec.id,
        "title": spec.title,
        "status": state.presence,
        "reason": state.reason,
        "ships_with_wan22": spec.embedded,
        "base": spec.base,
        "folder": str(state.folder) if state.available else None,
        "repository": spec.repo_id,
        "commit": manifest.commit if manifest else None,
        "adopted": manifest.adopted if manifest else [],
        "licence": spec.licence,
        "weights_gb": spec.weights_gb,
        "bytes_on_disk": state.size_bytes,
        "files": {
            name: {"bytes": record.size, "sha256": record.sha256}
            for name, record in sorted(manifest.files.items() if manifest else ())
        },
    }
