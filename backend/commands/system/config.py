"""`wan22 config`: show, change, check, migrate and restore the configuration of this home, with or without a server.

A running server and its workers read the file themselves: changes apply from the next task, those of section
`settings` from the next start.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, err, out, print_json
from backend.core.errors.surroundings import BadSettings
from backend.core.settings import load_environment

if TYPE_CHECKING:
    from backend.core.config.older_keys import OlderFile
    from backend.core.config.report import Entry, Migration
    from backend.core.config.section import ConfigFault
    from backend.core.configuration_bridge import ConfigurationBridge

app = typer.Typer(help="Show, change, check, migrate and restore the configuration.", no_args_is_help=True)
_PREFIX = "settings."
_SHOWN_CHANGES = 6

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Such as optimization.vae_tile_size.")]
OptionalNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Setting or section; default: all.", show_default=False),
]
OptionalFile = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Default: config.json of this home.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


@app.command()
def show(
    names: OptionalNames = None,
    every: Annotated[bool, typer.Option("--all", help="Also settings that have their default.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show settings in force and where each comes from; without NAME those that differ from their default."""
    bridge = _bridge()
    entries = bridge.entries()
    wanted = [one for one in entries if not names or any(_is_under(one.name, name) for name in names)]
    for name in names or []:
        if not any(_is_under(one.name, name) for one in wanted):
            bridge.entry(name)  # raises, with the nearest name
    if not names and not every:
        wanted = [one for one in wanted if one.source != "default"]
    if as_json:
        print_json([_entry(one) for one in wanted])
        return
    table = Table("setting", "value", "from", "meaning", box=None)
    for one in wanted:
        value = _text(one.value) + ("" if one.next_value is None else f" (next start: {_text(one.next_value)})")
        where = str(one.source) if one.position is None or one.source != "config.json" else f"{one.position}"
        table.add_row(escape(one.name), escape(value), where, escape(f"{one.meaning}: {one.legal}"))
    if wanted:
        out.print(table)
    else:
        out.print("Every setting has its default; `wan22 config show --all` lists them", highlight=False)
    _tell_faults(bridge.faults())


@app.command("set")
def set_values(
    pairs: Annotated[list[str], typer.Argument(metavar="NAME VALUE | NAME=VALUE", help="Values as in JSON, or text.")],
    as_json: JsonOption = False,
) -> None:
    """Change settings in config.json, all or none."""
    bridge = _bridge()
    values = _values(pairs)
    changed = bridge.set(values)
    _done(bridge, changed, "Set", as_json=as_json)
    given = {one.name: one for one in bridge.entries()}
    for name in values:
        if name in given and given[name].source == "environment":
            variable = f"WAN22_{name.removeprefix(_PREFIX).upper()}"
            err.print(f"note: {variable} in the environment is above {name}", highlight=False, soft_wrap=True)


@app.command()
def unset(names: Names, as_json: JsonOption = False) -> None:
    """Remove settings from config.json, so that their defaults apply."""
    bridge = _bridge()
    _done(bridge, bridge.unset(names), "Removed", as_json=as_json)


@app.command()
def validate(file: OptionalFile = None, as_json: JsonOption = False) -> None:
    """Check a config.json and name every fault with its place. Exit status 1 if anything has no effect."""
    bridge = _bridge(file)
    if file is not None and not file.is_file():
        raise BadSettings(f"{file} is not a file", suggestions=("Correct the path.",))
    faults = bridge.faults()
    older = () if faults and not faults[0].keys else bridge.older().settings
    if as_json:
        print_json(
            {
                "valid": not faults,
                "file": bridge.file.path,
                "faults": [_fault(one) for one in faults],
                "earlier_application": [one.sentence for one in older],
            }
        )
    else:
        for fault in faults:
            out.print(fault.sentence, markup=False, highlight=False, soft_wrap=True)
        for one in older:
            out.print(f"note: {one.sentence}", style="dim", markup=False, highlight=False, soft_wrap=True)
        if not faults:
            out.print(f"{bridge.file.path} is valid", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)


@app.command()
def migrate(file: OptionalFile = None, dry_run: DryRun = False, as_json: JsonOption = False) -> None:
    """Take over a config.json or models.toml of the earlier application, and say what became of every setting.

    Without FILE, this home's own config.json gets the names of today. What has no counterpart is named.
    """
    bridge = _bridge()
    migration = bridge.migrate(None if file is None else _other(file), dry_run=dry_run)
    if as_json:
        print_json(_migration(migration, dry_run=dry_run))
        return
    kind = "no settings of the earlier application" if migration.generation is None else f"{migration.generation}"
    out.print(f"{file or bridge.file.path}: {kind}", markup=False, highlight=False, soft_wrap=True)
    for one in migration.settings:
        out.print(f"  {one.sentence}", markup=False, highlight=False, soft_wrap=True)
    for name in migration.missing:
        out.print(f"  `{name}` is missing; the defaults apply", markup=False, highlight=False, soft_wrap=True)
    for name in migration.unknown:
        out.print(f"  `{name}` is not known, and is left as it is", markup=False, highlight=False, soft_wrap=True)
    for name in migration.stays:
        out.print(f"  `{name}` stays as this home has it", markup=False, highlight=False, soft_wrap=True)
    _tell_faults(list(migration.faults))
    verb = "Would change" if dry_run else "Changed"
    out.print(f"{verb} {_counted(migration.changed)}", highlight=False, soft_wrap=True)


@app.command()
def diff(
    version: Annotated[
        str | None,
        typer.Argument(metavar="NUMBER|FILE", help="Default: the version before the present one.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is different from an earlier version of config.json, or from another file."""
    from backend.core.config.content import differences

    bridge = _bridge()
    present = bridge.file.content()
    if version is not None and not version.isdigit():
        other = _content_of(Path(version))
    else:
        bridge.note()
        versions = bridge.versions()
        number = None if version is None else int(version)
        earlier = versions[1:] if number is None else versions
        found = next((one for one in earlier if number in (None, one.number)), None)
        if found is None and number is not None:
            raise BadSettings(f"There is no version {number}", suggestions=("`wan22 config history` lists them.",))
        other = {} if found is None else found.values or {}
    changes = differences(other, present)
    shown = {name: (bridge.shown(name, old), bridge.shown(name, new)) for name, (old, new) in changes.items()}
    if as_json:
        print_json({name: {"before": old, "now": new} for name, (old, new) in shown.items()})
        return
    for name, (old, new) in shown.items():
        line = f"{name}: {'not set' if old is None else _text(old)} → {'not set' if new is None else _text(new)}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if not shown:
        out.print("Nothing is different")


@app.command()
def history(as_json: JsonOption = False) -> None:
    """List the versions of config.json, the newest first."""
    bridge = _bridge()
    bridge.note()
    versions = bridge.versions()
    if as_json:
        print_json(
            [{"number": one.number, "at": one.at, "by": one.by, "changed": list(one.changed)} for one in versions]
        )
        return
    table = Table("version", "at", "by", "changed", box=None)
    for one in versions:
        back = "" if one.restores is None else f" (back to {one.restores})"
        table.add_row(str(one.number), one.at, escape(one.by + back), escape(_counted(one.changed)))
    out.print(table)


@app.command()
def undo(
    version: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Version to go back to.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take the last change of config.json back, whoever made it; again for the one before."""
    bridge = _bridge()
    back, changed = bridge.undo(version)
    if as_json:
        print_json({"version": back.number, "changed": list(changed)})
        return
    out.print(f"Version {back.number} of {back.at} is back; different now: {_counted(changed)}", highlight=False)
    _tell_faults(bridge.faults())


def _bridge(file: Path | None = None) -> ConfigurationBridge:
    """Return the configuration of this home, or that in a file; works with a broken file, too."""
    from backend.core.config.file import ConfigFile
    from backend.services.system.configuration import configuration_in

    return configuration_in(ConfigFile(file or load_environment().paths.config_file))


def _other(file: Path) -> OlderFile:
    from backend.core.config.models_toml import read_models_toml
    from backend.core.config.older_keys import read_older

    return read_models_toml(file) if file.suffix.lower() == ".toml" else read_older(_content_of(file))


def _content_of(file: Path) -> dict[str, Any]:
    from backend.core.config.file import ConfigFile

    if not file.is_file():
        raise BadSettings(f"{file} is not a file", suggestions=("Correct the path.",))
    return ConfigFile(file).content()


def _values(words: list[str]) -> dict[str, Any]:
    """Read `NAME=VALUE …` or `NAME VALUE …`."""
    if words and "=" in words[0].partition(" ")[0]:
        pairs = [tuple(word.split("=", 1)) for word in words]
    else:
        pairs = [tuple(words[at : at + 2]) for at in range(0, len(words), 2)]
    if any(len(pair) != 2 for pair in pairs):
        raise BadSettings("Every name needs a value", suggestions=("Write NAME VALUE, or NAME=VALUE.",))
    return {name: _value(text) for name, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _done(bridge: ConfigurationBridge, changed: tuple[str, ...], verb: str, *, as_json: bool) -> None:
    later = [name for name in changed if name.startswith(_PREFIX)]
    if as_json:
        print_json({"changed": list(changed), "at_next_start": later})
        return
    if not changed:
        out.print("Nothing is different")
        return
    when = "at the next start" if len(later) == len(changed) else "from the next task"
    if 0 < len(later) < len(changed):
        when += f", {_counted(tuple(later))} at the next start"
    out.print(f"{verb} {_counted(changed)}; in force {when}", highlight=False, soft_wrap=True)
    _tell_faults(bridge.faults())


def _tell_faults(faults: list[ConfigFault]) -> None:
    for fault in faults:
        err.print(f"warning: {fault.sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _counted(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN_CHANGES
    shown = ", ".join(names[:_SHOWN_CHANGES]) or "nothing"
    return shown + (f" and {more} more" if more > 0 else "")


def _is_under(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _entry(one: Entry) -> dict[str, Any]:
    return asdict(one) | {"position": None if one.position is None else str(one.position)}


def _fault(one: ConfigFault) -> dict[str, Any]:
    place = one.position
    return {
        "name": one.name,
        "rule": one.rule,
        "line": None if place is None else place.line,
        "column": None if place is None else place.column,
        "nearest": one.nearest,
        "message": one.sentence,
    }


def _migration(one: Migration, *, dry_run: bool) -> dict[str, Any]:
    return {
        "generation": one.generation,
        "settings": [
            {
                "name": ".".join(each.keys),
                "fate": each.fate,
                "now": ".".join(each.target or ()) or None,
                "message": each.sentence,
            }
            for each in one.settings
        ],
        "missing": list(one.missing),
        "unknown": list(one.unknown),
        "stays": list(one.stays),
        "changed": list(one.changed),
        "faults": [_fault(each) for each in one.faults],
        "dry_run": dry_run,
    }
