"""`wan22 conformance`: runs every check against a server and reports what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.markup import escape

from backend.commands.console.terminal import JsonOption, finite, out, print_json
from backend.core.errors.surroundings import BadSettings

if TYPE_CHECKING:
    from backend.commands.conformance.probe import Probe

Outcome = Literal["pass", "fail", "skip"]
_COLOURS: Final[dict[Outcome, str]] = {"pass": "green", "fail": "red", "skip": "yellow"}
_IN_WORDS: Final[dict[Outcome, str]] = {"pass": "yes", "fail": "**no**", "skip": "not checked"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    name: str
    fact: str
    outcome: Outcome
    reason: str | None  #: why it failed or was not made

    @property
    def line(self) -> str:
        """The finding for a terminal, with its reason below it."""
        said = f"[{_COLOURS[self.outcome]}]{self.outcome}[/]  {self.name:<22} {escape(self.fact)}"
        return said if self.reason is None else f"{said}\n      [dim]{escape(self.reason)}[/dim]"

    @property
    def row(self) -> str:
        """The finding as a row of a table in Markdown."""
        reason = "" if self.reason is None else ": " + " ".join(self.reason.split()).replace("|", "\\|")
        return f"| `{self.name}` | {self.fact} | {_IN_WORDS[self.outcome]}{reason} |"


def examine(probe: Probe) -> Iterator[CheckResult]:
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
            yield CheckResult(check.name, check.fact, outcome, reason)
    finally:
        probe.clean_up()


def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the server, with or without /v1.")],
    key: Annotated[str, typer.Option("--key", help="Its API key.", envvar="OPENAI_API_KEY")] = "unused",
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME=VALUE", help="Send this with every request; may be repeated."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the videos show.")] = None,
    failed_video: Annotated[
        str | None, typer.Option("--failed-video", metavar="ID", help="A video that failed, for the check of it.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", min=1.0, callback=finite, help="How long a video may take, in seconds.")
    ] = 600.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table in Markdown, for a page.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a server of /v1/videos, ours or another, against what the packages of OpenAI need of it.

    Makes about ten videos and deletes them. Ends with status 1 when a check fails.
    """
    import httpx2

    from backend.commands.client import unreachable
    from backend.commands.conformance.probe import Probe, Wishes

    wishes = Wishes(fields=dict(_pair(text) for text in fields or []), failed_video=failed_video, seconds=seconds)
    if prompt is not None:
        wishes = wishes.about(prompt)
    address = url.rstrip("/").removesuffix("/v1") + "/v1"
    headers = {"Authorization": f"Bearer {key}"}
    found: list[CheckResult] = []
    try:
        client = httpx2.Client(base_url=address, headers=headers, timeout=60.0)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise BadSettings(f"{url} is not an address", suggestions=("Write it as http://HOST:PORT.",)) from error
    with client:
        try:
            client.get("/models")  # a server that is not there fails no check: none can be made
        except httpx2.HTTPError as error:
            raise unreachable(address, error) from error
        for one in examine(Probe(client, wishes)):
            found.append(one)
            if not as_json and not markdown:
                out.print(one.line, highlight=False)
    counted = Counter(one.outcome for one in found)
    counts = {outcome: counted[outcome] for outcome in _COLOURS}
    told = f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} not checked"
    if as_json:
        print_json({"url": address, **counts, "checks": [asdict(one) for one in found]})
    elif markdown:
        typer.echo(
            "\n".join([f"{told}.", "", "| check | what holds | here |", "|---|---|---|", *(one.row for one in found)])
        )
    else:
        out.print(told)
    if counts["fail"]:
        raise typer.Exit(1)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter("write it as NAME=VALUE", param_hint="--field")
    return name, value
