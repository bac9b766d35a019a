"""`wan22 replay`: make a video again from the record inside it, and say whether it became the same one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.clips import fetch_clips
from backend.commands.terminal import OutputOption, ServerOption, any_server, check_file, check_target, err, out
from backend.core.errors import BadSettings, InputMissing

if TYPE_CHECKING:
    from backend.client import ApiClient
    from backend.replay import Factor, Record

_SHOWN_CHARS = 40  # of a value in the table


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.mp4", help="A video that wan22 made.")],
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the frames are the same; ends with 1 when they are not.")
    ] = False,
    output: OutputOption = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="The start image, where the server does not have it any more.")
    ] = None,
    end_image: Annotated[Path | None, typer.Option("--end-image", help="The same for the end image.")] = None,
    server: ServerOption = None,
) -> None:
    """Make a video again, exactly as the record inside the file says."""
    from backend.replay import Record

    record = Record.read(file)
    target = output or Path(f"{file.stem}-replay{file.suffix}")
    check_target(target)
    if target.resolve() == file.resolve():
        raise BadSettings(f"{target} is the video to be made again", suggestions=("Choose another -o.",))
    check_file(image, "--image")
    check_file(end_image, "--end-image")
    with any_server(server) as client:
        wish = record.wish() | _images(client, record, {"image": image, "end_image": end_image})
        (saved,) = fetch_clips(client, client.submit(wish), target)
    if check and not _compare(file, record, saved):
        raise typer.Exit(1)


def _images(client: ApiClient, record: Record, given: dict[str, Path | None]) -> dict[str, Any]:
    """Return the ids of the images on this server, sending those that are given here.

    Raises:
        InputMissing: one is neither there nor given.
    """
    found = {}
    for field, recorded in record.images.items():
        option, path = f"--{field.replace('_', '-')}", given[field]
        if path is not None:
            found[f"{field}_id"] = client.keep_image(path)
            if found[f"{field}_id"] != recorded:
                err.print(f"warning: {option} is not the picture that the video was made from", style="yellow")
        elif not client.has_image(recorded):
            raise InputMissing(
                f"The {field.replace('_', ' ')} of this video is not on the server any more",
                suggestions=(f"Give the file with {option}; it is known by its pixels ({recorded[:12]}…).",),
            )
    return found


def _compare(file: Path, record: Record, saved: Path) -> bool:
    """Print what came out of the comparison and return whether the frames are the same."""
    from backend.clip_distance import measure_distance
    from backend.replay import Record

    again = Record.read(saved)
    if record.frames_sha256 is not None and again.frames_sha256 is not None:
        identical, basis = record.frames_sha256 == again.frames_sha256, "the frames before encoding"
    else:
        identical, basis = measure_distance(file, saved).equal, "the decoded frames; the file's record has no hash"
    out.print(_table(record.factors(again)))
    if identical:
        out.print(f"[bold green]identical[/] ({basis})")
        return True
    out.print(f"[bold red]different[/] ({basis})")
    distance = measure_distance(file, saved)
    if distance.equal:
        out.print("The decoded frames are the same: the difference is lost in the file.")
    else:
        out.print(
            f"PSNR {distance.psnr:.2f} dB over {distance.frames} decoded frames, "
            f"worst {distance.worst_psnr:.2f} dB (frame {distance.worst_frame})"
        )
    changed = [factor.name for factor in record.factors(again) if not factor.same]
    out.print(escape("changed since: " + ", ".join(changed) if changed else "No recorded factor has changed."))
    return False


def _table(factors: list[Factor]) -> Table:
    table = Table("factor", "in the file", "now", "", box=None)
    for factor in factors:
        mark = "[green]same[/]" if factor.same else "[bold red]differs[/]"
        table.add_row(escape(factor.name), _shown(factor.then), _shown(factor.now), mark)
    return table


def _shown(value: str) -> str:
    return escape(value if len(value) <= _SHOWN_CHARS else value[: _SHOWN_CHARS - 1] + "…")
