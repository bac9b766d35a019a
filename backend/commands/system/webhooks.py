"""`wan22 webhooks`: the messages to webhooks and the secret that signs them. Works on this home; needs no server."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from backend.commands.console.terminal import JsonOption, err, out, own_database, print_json
from backend.core.domain import SHORT_ID, iso
from backend.core.settings import load_settings

if TYPE_CHECKING:
    from backend.services.webhooks.signing import ServerSecret
    from backend.store.clients.deliveries import Delivery, DeliveryStore

_MOST = 1000
MessageId = Annotated[str, typer.Argument(metavar="ID", help="Id of the message.")]
app = typer.Typer(
    help="List messages to webhooks, send them again, try an address, and manage their secret.", no_args_is_help=True
)


@app.command("list")
def list_messages(
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were given up.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="Most messages.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the messages, newest first, and why one was not delivered."""
    with own_database() as database:
        found = _failed(_store(database), limit) if failed else _store(database).list(limit=limit)
    if as_json:
        print_json([_plain(one) for one in found])
        return
    table = Table(Column("id", no_wrap=True), "task", "type", "host", "state", "attempts", "reason", box=None)
    for one in found:
        shown = (one.id, one.task_id[:SHORT_ID], one.type, one.host, one.state, str(one.attempts), one.reason or "")
        table.add_row(*map(escape, shown))
    out.print(table)


@app.command()
def show(message: MessageId, as_json: JsonOption = False) -> None:
    """Print one message, with its text."""
    with own_database() as database:
        found = _store(database).get(message)
    if as_json:
        print_json(_plain(found) | {"body": json.loads(found.body)})
        return
    for name, value in _plain(found).items():
        out.print(f"{name}: {'' if value is None else value}", markup=False, highlight=False, soft_wrap=True)
    out.print(json.dumps(json.loads(found.body), indent=2), markup=False, highlight=False, soft_wrap=True)


@app.command()
def redeliver(
    messages: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of messages.", show_default=False)
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that were given up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send messages again, beginning with the first attempt; they keep their ids. The running server does it."""
    if failed == bool(messages):
        raise typer.BadParameter("Name messages, or use --failed for all that were given up.")
    with own_database() as database:
        store = _store(database)
        named = [one.id for one in _failed(store, _MOST)] if failed else messages or []
        again = [store.redeliver(one) for one in named]
    if as_json:
        print_json([_plain(one) for one in again])
    else:
        out.print(f"{len(again)} message{'' if len(again) == 1 else 's'} will be sent again.", highlight=False)


@app.command()
def secret(as_json: JsonOption = False) -> None:
    """Print the secrets that sign messages, the newest first."""
    texts = _secret().texts()
    if as_json:
        print_json(texts)
    else:
        typer.echo("\n".join(texts))


@app.command()
def rotate(as_json: JsonOption = False) -> None:
    """Make a new secret and print it; the one before signs beside it until the next rotation."""
    made = _secret().rotate()
    err.print("Give it to the receivers. The one before is valid, too, until the next rotation.", markup=False)
    if as_json:
        print_json({"secret": made})
    else:
        typer.echo(made)


@app.command("test")
def try_one(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the receiver.")],
    own: Annotated[
        str | None, typer.Option("--secret", help="Secret of this webhook alone [default: the server's].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a signed test message now, by the same rules as any other. Exit status 1 if it was not taken."""
    from backend.services.outbound.targets import OutboundRules
    from backend.services.webhooks.trial import send_test

    trial = send_test(url, OutboundRules.of(load_settings()), _secret(), own)
    if as_json:
        print_json(asdict(trial))
    elif trial.delivered:
        out.print(f"Delivered in {trial.seconds:.2f} s: the receiver answered {trial.status}.", highlight=False)
    else:
        out.print(f"Not delivered: {trial.reason}.", highlight=False, markup=False)
    if not trial.delivered:
        raise typer.Exit(1)


def _secret() -> ServerSecret:
    from backend.services.webhooks.signing import ServerSecret

    settings = load_settings()
    settings.paths.create()
    return ServerSecret(settings, settings.paths)


def _store(database: Any) -> DeliveryStore:
    from backend.store.clients.deliveries import DeliveryStore

    return DeliveryStore(database)


def _failed(store: DeliveryStore, limit: int) -> list[Delivery]:
    from backend.store.clients.deliveries import DeliveryState

    return store.list(states=(DeliveryState.FAILED,), limit=limit)


def _plain(one: Delivery) -> dict[str, Any]:
    """Describe a message by its host: the rest of its address may be a secret."""
    names = ("id", "task_id", "type", "host", "state", "attempts", "status", "reason")
    return {name: getattr(one, name) for name in names} | {"created_at": iso(one.created_at)}
