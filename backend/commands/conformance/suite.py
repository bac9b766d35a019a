"""`wan22 conformance`: runs every check against a server and reports what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import JsonOption, out, print_json

if TYPE_CHECKING:
    from backend.commands.conformance.probe import Probe

Outcome = Literal["pass", "fail", "skip"]
_COLOURS: Final[dict[Outcome, str]] = {"pass": "green", "fail": "red", "skip": "yellow"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    fact: str
    outcome: Outcome
    reason: str | None  #: why it failed or was not made


def examine(probe: Probe) -> Iterator[Finding]:
    """Make every check in order; what they made on the server is deleted at the end."""
    from backend.commands.conformance import fetching, making
    from backend.commands.conformance.probe import Broken, NotChecked

    try:
        for check in (*making.CHECKS, *fetching.CHECKS):
            outcome: Outcome = "pass"
            reason = None
            try:
                check.run(probe)
            except Broken as error:
                outcome, reason = "fail", str(error)
            except NotChecked as error:
                outcome, reason = "skip", str(error)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                outcome, reason = "fail", f"the answer has another shape: {type(error).__name__} {error}"
            yield Finding(check.name, check.fact, outcome, reason)
    finally:
        probe.clean_up()


def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the server, with or without /v1.")],
    key: Annotated[str, typer.Option("--key", help="Its API key.")] = "unused",
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME=VALUE", help="Send this with every request; may be repeated."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the videos show.")] = None,
    failed_video: Annotated[
        str | None, typer.Option("--failed-video", metavar="ID", help="A video that failed, for the check of it.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", min=1.0, help="How long a video may take, in seconds.")
    ] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Check a server of /v1/videos, ours or another, against what the packages of OpenAI need of it.

    Makes about ten videos and deletes them. Ends with status 1 when a check fails.
    """
    import httpx2

    from backend.commands.conformance.probe import Probe, Wishes

    sent = dict(_pair(text) for text in fields or [])
    wishes = Wishes(fields=sent, failed_video=failed_video, seconds=seconds)
    if prompt is not None:
        wishes = Wishes(prompt, sent, failed_video, seconds)
    address = url.rstrip("/").removesuffix("/v1") + "/v1"
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=address, headers=headers, timeout=60.0) as client:
        found = list(examine(Probe(client, wishes)))
    counts = {outcome: sum(one.outcome == outcome for one in found) for outcome in _COLOURS}
    if as_json:
        print_json({"url": address, **counts, "checks": [asdict(one) for one in found]})
    else:
        out.print(_table(found))
        out.print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} not checked")
    if counts["fail"]:
        raise typer.Exit(1)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter("write it as NAME=VALUE", param_hint="--field")
    return name, value


def _table(found: list[Finding]) -> Table:
    table = Table("check", "", "fact", box=None)
    for one in found:
        fact = escape(one.fact) + (f"\n[dim]{escape(one.reason)}[/dim]" if one.reason else "")
        table.add_row(one.name, f"[{_COLOURS[one.outcome]}]{one.outcome}[/]", fact)
    return table
