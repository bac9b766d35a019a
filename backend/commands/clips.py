"""From submitted tasks to files: follow each with a progress bar, save the video, report how it was made.

Shared by every command that makes videos. A task that fails does not keep the others of its request from being saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from backend.commands.console.progress_bar import follow_with_bar
from backend.commands.console.terminal import err, notify, out, print_json
from backend.core.errors.base import WanError
from backend.core.errors.generation import GenerationFailed
from backend.core.errors.interruptions import TaskCancelled
from backend.core.errors.tree import kind_of

if TYPE_CHECKING:
    from backend.commands.client import ApiClient

_PANEL = "The file"
GifOption = Annotated[bool, typer.Option("--gif", help="Also save a looping GIF beside it.", rich_help_panel=_PANEL)]
ShowOption = Annotated[
    bool, typer.Option("--show", help="Show a row of its frames in the terminal.", rich_help_panel=_PANEL)
]
UpscaleOption = Annotated[
    int | None,
    typer.Option(
        "--upscale",
        metavar="N",
        min=2,
        max=8,
        help="Enlarge the saved clip N times (Lanczos); nothing is added to the picture [default: no].",
        rich_help_panel=_PANEL,
    ),
]
_STILLS, _STILL_ROWS = 6, 6
_SHADES = " .:-=+*#%@"  # dark to light, for terminals without colours


@dataclass(frozen=True, slots=True)
class Extras:
    """What happens to each saved clip besides being saved, and how it is reported."""

    gif: bool = False
    show: bool = False
    upscale: int | None = None
    as_json: bool = False
    quiet: bool = False  #: whether the caller reports the result itself


def fetch_clips(
    client: ApiClient, submitted: dict[str, Any], output: Path | None, extras: Extras = Extras()
) -> list[Path]:
    """Wait for every task of a submit, save its video and report it; return the files.

    Raises:
        TaskCancelled: the user stopped it here (unfinished tasks are cancelled), or somebody cancelled it.
        GenerationFailed: a task failed; the videos of the others are saved.
    """
    for reason in submitted.get("reasons") or []:
        err.print(f"model: {escape(reason)}", style="dim")
    for note in submitted.get("adjustments") or []:
        err.print(f"note: {escape(note)}", style="yellow", soft_wrap=True)
    if (first := submitted.get("download")) is not None:
        still = f", {first['bytes'] / 1e9:.2f} GB remaining" if "bytes" in first else ""
        err.print(f"model: {escape(first['repository'])} is downloaded first{still}", style="yellow")
    task_ids: list[str] = submitted.get("task_ids") or [submitted["task_id"]]
    saved: list[Path] = []
    videos: list[dict[str, Any]] = []
    failure: WanError | None = None
    for number, task_id in enumerate(task_ids, 1):
        label = f"{number}/{len(task_ids)} " if len(task_ids) > 1 else ""
        try:
            task = follow_with_bar(client.follow(task_id, notify), err, label)
        except KeyboardInterrupt:
            _cancel(client, task_ids[number - 1 :])
            raise TaskCancelled("Cancelled.", suggestions=()) from None
        ended = _ended_badly(task)
        if ended is not None:
            failure = failure or ended
            if len(task_ids) > 1:
                err.print(f"{label}{escape(ended.message)}", style="red")
            continue
        target = target_of(output, task_id, number, len(task_ids))
        client.save_video(task_id, target)
        saved.append(target)
        video = client.call("GET", f"/api/v1/outputs/{task_id}")
        videos.append(video | {"file": str(target)} | _add(extras, target))
        if not (extras.as_json or extras.quiet):
            _report(videos[-1], set(submitted.get("adjustments") or []))
    if extras.as_json:
        print_json(videos)
    if failure is not None:
        raise failure
    return saved


def _add(extras: Extras, target: Path) -> dict[str, Any]:
    """Enlarge the clip, save the GIF, show the frames; return what the report says of it."""
    from backend.services.media.copies import enlarge, save_gif, stills

    added: dict[str, Any] = {}
    if extras.upscale is not None:
        added["enlarged_to"] = "{}x{}".format(*enlarge(target, extras.upscale))
    if extras.gif:
        added["gif"] = str(save_gif(target, target.with_suffix(".gif")))
    if extras.show and not extras.as_json:
        coloured = out.color_system is not None
        count = max(1, min(_STILLS, (out.width + 1) // (2 * _STILL_ROWS + 1)))
        out.print(_row(stills(target, count, 2 * _STILL_ROWS if coloured else _STILL_ROWS), coloured))
    return added


def _row(pictures: list[Any], coloured: bool) -> Text:
    """Draw pictures side by side: two pixels in each character cell, or a shade of grey where there are no colours."""
    row = Text(no_wrap=True)
    for y in range(0, len(pictures[0]), 2 if coloured else 1):
        for number, picture in enumerate(pictures):
            row.append(" " if number else "")
            if coloured:
                for upper, lower in zip(picture[y], picture[y + 1], strict=True):
                    row.append("▀", f"rgb({','.join(map(str, upper))}) on rgb({','.join(map(str, lower))})")
            else:
                for pixel in picture[y]:
                    row.append(2 * _SHADES[int(pixel.mean()) * len(_SHADES) // 256])
        row.append("\n")
    row.right_crop(1)
    return row


def target_of(output: Path | None, task_id: str, number: int, count: int) -> Path:
    """Return where a task's video goes: as asked; `name-1.mp4`, `name-2.mp4` … where there are several."""
    if output is None:
        return Path(f"wan22-{task_id[:8]}.mp4")
    return output if count == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")


def _ended_badly(task: dict[str, Any]) -> WanError | None:
    if task["status"] == "cancelled":
        return TaskCancelled("The task was cancelled.", suggestions=())
    if task["status"] == "failed":
        kind = kind_of(task.get("error_code")) if task.get("error_code") else GenerationFailed
        return kind(
            task.get("error_message") or "The task failed.",
            suggestions=tuple(task.get("suggestions") or ()),
            actions=tuple(task.get("actions") or ()),
        )
    return None


def _cancel(client: ApiClient, task_ids: list[str]) -> None:
    for task_id in task_ids:
        try:
            client.call("POST", f"/api/v1/queue/{task_id}/cancel", json={})
        except WanError as error:  # it has just finished, or the server is gone; try the next one
            err.print(f"{task_id}: {escape(error.message)}", style="dim")


def _report(video: dict[str, Any], said: set[str]) -> None:
    """Print where the video is and how it was made; `said` are sentences that were printed before."""
    made = video["generation_params"]
    size = (
        f"{video['resolution']} enlarged to {video['enlarged_to']}" if "enlarged_to" in video else video["resolution"]
    )
    out.print(f"[bold green]{escape(video['file'])}[/]  {size}, {made['num_frames']} frames, H.264", soft_wrap=True)
    if "gif" in video:
        out.print(f"[bold green]{escape(video['gif'])}[/]  the same as a looping GIF", soft_wrap=True)
    if video.get("mock"):
        out.print(f"[bold yellow]MOCK[/]  no model made this clip: {escape(video['mock_reason'])}", soft_wrap=True)
        out.print(f"id {video['id']}", style="dim")
        return
    out.print(
        f"made by {made['model']}, seed {made['seed']}, {made['steps']} steps, {made['scheduler']}, "
        f"guidance {made['guidance_scale']:g}"
        + (f"/{made['guidance_scale_2']:g}" if made.get("guidance_scale_2") is not None else "")
        + f", in {video['generation_seconds']:.1f} s",
        soft_wrap=True,
    )
    out.print(f"id {video['id']}" + (", latents kept" if video.get("has_latents") else ""), style="dim")
    for lora in video.get("loras") or []:
        reason = f": {lora['reason']}" if lora.get("reason") else ""
        out.print(f"LoRA {escape(lora['id'])} {escape(lora['outcome'] + reason)}", style="dim", soft_wrap=True)
    for warning in video.get("warnings") or []:
        if warning not in said:
            err.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
