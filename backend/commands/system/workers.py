"""`wan22 worker`: run a worker; list, drain and resume the devices of a running server."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, ServerOption, out, print_json, running_server

DeviceArgument = Annotated[
    str | None,
    typer.Argument(metavar="DEVICE", help="Such as cuda:0 or host/cuda:0; all of them if omitted.", show_default=False),
]


def list_workers(as_json: JsonOption = False, server: ServerOption = None) -> None:
    """List the workers and what each is doing."""
    with running_server(server) as client:
        answer = client.call("GET", "/api/v1/workers")
    if as_json:
        print_json(answer)
        return
    table = Table("device", "state", "drained", "doing", box=None)
    for one in answer["workers"]:
        table.add_row(one["device"], one["state"], "yes" if one["drained"] else "", escape(one.get("detail", "")))
    out.print(table)


def drain(
    device: DeviceArgument = None,
    now: Annotated[
        bool, typer.Option("--now", help="Interrupt the running task too; it continues from where it is.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Let a device finish its task and take no more, until `wan22 worker resume`, also after a restart."""
    _post("drain", {"device": device, "now": now}, server, as_json=as_json)


def resume(device: DeviceArgument = None, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Let a drained device take tasks again."""
    _post("resume", {"device": device}, server, as_json=as_json)


def _post(action: str, body: dict[str, Any], server: str | None, *, as_json: bool) -> None:
    with running_server(server) as client:
        answer = client.call("POST", f"/api/v1/workers/{action}", json=body)
    if as_json:
        print_json(answer)
    else:
        out.print(answer["message"])
