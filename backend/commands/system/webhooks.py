"""`wan22 webhooks`: the messages to webhooks and the secret that signs them. Works on this home; needs no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, err, out, own_database, print_json
from backend.core.domain import iso
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.services.webhooks.signing import ServerSecret
    from backend.store.clients.deliveries import Delivery, DeliveryStore

app = typer.Typer(help="List messages to webhooks, send them again, and manage their secret.", no_args_is_help=True)


@app.command("list")
def list_messages(
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were given up.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most messages.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the messages, newest first, and why one was not delivered."""
    from backend.store.clients.deliveries import DeliveryState

    with own_database() as database:
        found = _store(database).list(states=(DeliveryState.FAILED,) if failed else (), limit=limit)
    if as_json:
        print_json([_plain(one) for one in found])
        return
    table = Table("id", "task", "type", "host", "state", "attempts", "reason", box=None)
    for one in found:
        shown = (one.id, one.task_id[:8], one.type, one.host, one.state, str(one.attempts), one.reason or "")
        table.add_row(*map(escape, shown))
    out.print(table)


@app.command()
def redeliver(message: Annotated[str, typer.Argument(help="Id of the message.")], as_json: JsonOption = False) -> None:
    """Send a message again from the first attempt on; it keeps its id. The running server sends it within seconds."""
    with own_database() as database:
        again = _store(database).redeliver(message)
    if as_json:
        print_json(_plain(again))
    else:
        out.print(f"The message {again.id} is sent again.", markup=False, highlight=False)


@app.command()
def secret() -> None:
    """Print the secrets that sign messages, the newest first."""
    for text in _secret().texts():
        typer.echo(text)


@app.command()
def rotate() -> None:
    """Make a new secret and print it; the one before signs beside it until the next rotation."""
    made = _secret().rotate()
    err.print("Give it to the receivers; until the next rotation the one before is good, too.", markup=False)
    typer.echo(made)


def _secret() -> ServerSecret:
    from backend.services.webhooks.signing import ServerSecret

    settings = load_settings()
    settings.paths.create()
    return ServerSecret(settings, settings.paths)


def _store(database: Any) -> DeliveryStore:
    from backend.store.clients.deliveries import DeliveryStore

    return DeliveryStore(database)


def _plain(one: Delivery) -> dict[str, Any]:
    """Describe a message without its address, which may hold a token."""
    names = ("id", "task_id", "type", "host", "state", "attempts", "status", "reason")
    return {name: getattr(one, name) for name in names} | {"created_at": iso(one.created_at)}
