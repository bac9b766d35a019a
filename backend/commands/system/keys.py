"""`wan22 keys`: create, list and revoke API keys. Works on this home's database; needs no running server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, err, finite, out, own_database, print_json
from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.errors.access import KeyNotFound
from backend.core.errors.requests import InvalidRequest
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.store.access.keys import KeyStore

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; unique among the valid keys.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="What it may do; repeat it for several.", show_default="generate"),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", min=0.001, max=36_500, help="It expires after this many days.", callback=finite),
    ] = None,
    gpu_seconds: Annotated[
        float | None,
        typer.Option(
            "--gpu-seconds", min=0, help="Seconds that workers may work for it in a UTC day.", callback=finite
        ),
    ] = None,
    tasks: Annotated[int | None, typer.Option("--tasks", min=1, help="Most unfinished tasks.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", min=1, help="Most requests a minute.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. Nothing shows it again: only its digest is kept.

    From the first key on, the server serves nobody without one. Commands of this user on this machine need none.
    """
    drawn, limits = draw_key(), KeyLimits(rate, gpu_seconds, tasks)
    load_settings().paths.create()  # a key may be the first thing that a home gets
    with own_database() as database:
        seconds = None if days is None else days * 86_400
        made = _store(database).create(drawn, name, scope or [Scope.GENERATE], limits, seconds)
    if as_json:
        print_json(made.to_json() | {"key": drawn.text})
        return
    err.print(f"The key {made.name} may {', '.join(made.scopes)}. Keep it now: it is not shown again.", markup=False)
    typer.echo(drawn.text)


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys, revoked and expired ones too."""
    with own_database() as database:
        keys = _store(database).all()
    if as_json:
        print_json([key.to_json() for key in keys])
        return
    table = Table("id", "name", "scopes", "state", "expires", "last used", box=None)
    for key in keys:
        table.add_row(
            key.id, escape(key.name), ", ".join(key.scopes), key.state, _day(key.expires_at), _day(key.last_used_at)
        )
    out.print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Id of the key, or the name of a valid one.")], as_json: JsonOption = False
) -> None:
    """End a key; a running server closes its sockets and streams within five seconds."""
    with own_database() as database:
        store = _store(database)
        named = [one.id for one in store.all() if key == one.id or (key == one.name and one.state == "valid")]
        if not named:
            raise KeyNotFound
        if len(named) > 1:
            raise InvalidRequest("A key has this text as its name and another one as its id: give the id of either")
        revoked = store.revoke(named[0])
    if as_json:
        print_json(revoked.to_json())
    else:
        out.print(f"The key {revoked.name} is revoked.", markup=False, highlight=False)


def _store(database: Any) -> KeyStore:
    from backend.store.access.keys import KeyStore

    return KeyStore(database)


def _day(when: datetime | None) -> str:
    return "" if when is None else f"{when:%Y-%m-%d %H:%M}"
