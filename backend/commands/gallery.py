"""`wan22 list`, `show`, `open`, `rm` and `import`: the finished videos of a server, or of this home when none runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.console.terminal import (
    JsonOption,
    OutputOption,
    ServerOption,
    any_server,
    check_file,
    check_target,
    err,
    out,
    print_json,
)
from backend.core.domain import SHORT_ID
from backend.core.settings import load_settings

VideoId = Annotated[str, typer.Argument(metavar="ID", help="Id of the video or its beginning; `last` is the newest.")]


def list_videos(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Most videos to list.")] = 20,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """List the finished videos, newest first."""
    with any_server(server, worker=False) as client:
        answer = client.call("GET", "/api/v1/outputs", params={"limit": limit})
    videos = answer["videos"]
    if as_json:
        print_json(videos)
        return
    if not videos:
        out.print('No videos yet. Make one: `wan22 generate "a red circle growing on a navy background"`')
        return
    table = Table("id", "made", "model", "size", "s", "prompt", box=None)
    for video in videos:
        made = _local_time(video)
        words = (video["id"][:SHORT_ID], made, video["model_type"], video["resolution"], f"{video['duration']:.1f}")
        table.add_row(*(escape(word) for word in words), escape(video["prompt"]))
    out.print(table)
    count = answer["total_count"]
    more = "" if count == len(videos) else f"{len(videos)} of "
    out.print(f"{more}{count} {'video' if count == 1 else 'videos'}, {_size(answer['total_size_mb'])}", style="dim")


def show_video(
    video_id: VideoId, output: OutputOption = None, as_json: JsonOption = False, server: ServerOption = None
) -> None:
    """Show how a video was made; with -o, save it again."""
    if output is not None:
        check_target(output)
    with any_server(server, worker=False) as client:
        video = client.call("GET", f"/api/v1/outputs/{client.video_id(video_id)}")
        if output is not None:
            client.save_video(video["id"], output)
    if as_json:
        print_json(video | ({} if output is None else {"file": str(output)}))
        return
    for name, value in _facts(video).items():
        out.print(f"[bold]{name:<10}[/] {escape(value)}", highlight=False, soft_wrap=True)
    for warning in video.get("warnings") or []:
        err.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
    if output is not None:
        out.print(f"saved as {escape(str(output))}")


def open_video(video_id: VideoId = "last", as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Play a video with the program that this machine has for it."""
    with any_server(server, worker=False) as client:
        found = client.video_id(video_id)
        path = load_settings().paths.video_of(found)
        if server is not None or not path.is_file():  # of a server elsewhere
            path = Path(tempfile.gettempdir()) / f"wan22-{found[:SHORT_ID]}.mp4"
            client.save_video(found, path)
    opened = _has_player() and typer.launch(str(path)) == 0
    if as_json:
        print_json({"id": found, "file": str(path), "opened": opened})
    elif not opened:
        out.print(f"No program opened it here. The video is in {escape(str(path))}", soft_wrap=True)


def remove_videos(
    video_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids or their beginnings; `last`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Delete videos with everything that was kept for them."""
    with any_server(server, worker=False) as client:
        found = list(dict.fromkeys(client.video_id(one) for one in video_ids))
        names = ", ".join(one[:SHORT_ID] for one in found)
        if not yes:
            typer.confirm(f"Delete {names}?", abort=True, err=True)
        for one in found:
            client.call("DELETE", f"/api/v1/outputs/{one}")
    if as_json:
        print_json({"deleted": found})
    else:
        out.print(f"Deleted {names}")


def import_clips(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="MP4 clips that were made elsewhere.")],
    settings: Annotated[
        bool,
        typer.Option("--settings", help="Only print the settings in each file; PNG and JPEG pictures are read, too."),
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Put clips into the gallery, and say with which settings they were made."""
    for path in files:
        check_file(path, "FILE")
    answers = []
    with any_server(server, worker=False) as client:
        for path in files:
            answers.append(client.send_clip(path, keep=not settings))
            if not as_json:
                _told(path, answers[-1])
    if as_json:
        print_json(answers)


def _told(path: Path, answer: dict[str, Any]) -> None:
    """Print what became of one file, and what it says about its settings."""
    found = answer.get("found", answer)
    if "video" in answer:
        what = "is in the gallery" if answer["new"] else "was in the gallery already"
        out.print(f"{escape(str(path))} {what}: {answer['video']['id']}", highlight=False, soft_wrap=True)
    else:
        out.print(f"[bold]{escape(str(path))}[/]", highlight=False, soft_wrap=True)
    origin = "no settings in it" if found.get("settings") is None else f"settings of {found['origin']}"
    out.print(f"{origin}{', which make the same clip again' if found['exact'] else ''}", highlight=False)
    for name, value in (found.get("settings") or {}).items():
        shown = value if isinstance(value, str) else json.dumps(value)
        out.print(f"  [bold]{name}[/] {escape(shown)}", highlight=False, soft_wrap=True)
    for one in found.get("missing") or []:
        err.print(f"missing: {one['field']} {escape(one['id'])}: {one['message']}", style="yellow", soft_wrap=True)
    for note in found.get("notes") or []:
        err.print(f"note: {escape(note)}", style="yellow", soft_wrap=True)


def _has_player() -> bool:
    """Whether a program that opens files can be expected here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and shutil.which("xdg-open") is not None


def _local_time(video: dict[str, Any]) -> str:
    """Return when a video was made, in the time zone of this machine; empty where that is not recorded."""
    created = video.get("created_at")
    return f"{datetime.fromisoformat(created).astimezone():%Y-%m-%d %H:%M}" if created else ""


def _size(megabytes: float) -> str:
    return f"{megabytes:.1f} MB" if megabytes >= 1 else f"{1024 * megabytes:.0f} KB"


def _facts(video: dict[str, Any]) -> dict[str, str]:
    made = video["generation_params"]
    if video.get("imported"):
        return _imported_facts(video)
    guidance = f"{made['guidance_scale']:g}" + (
        f"/{made['guidance_scale_2']:g}" if made.get("guidance_scale_2") is not None else ""
    )
    facts = {
        "id": video["id"],
        "prompt": video["prompt"],
        "model": video["model_type"],
        "picture": f"{video['resolution']}, {video['num_frames']} frames, {video['fps']:g} per second",
        "settings": f"seed {made['seed']}, {made['steps']} steps, {made['scheduler']}, guidance {guidance}",
        "made": f"{_local_time(video)}, in {video['generation_seconds']:.1f} s",
        "file": _size(video["file_size_mb"]) + (", latents kept" if video.get("has_latents") else ""),
        "quality": str(video.get("quality") or "not judged"),
    }
    loras = [f"{lora['id']} {lora['outcome']}" for lora in video.get("loras") or []]
    return facts | ({"LoRAs": ", ".join(loras)} if loras else {})


def _imported_facts(video: dict[str, Any]) -> dict[str, str]:
    """Return what is known of a clip that was made elsewhere: the rest is what its file says of itself."""
    settings = {name: value for name, value in video["generation_params"].items() if name not in ("prompt", "loras")}
    return {
        "id": video["id"],
        "prompt": video["prompt"] or "the file names none",
        "model": f"{video['model_type']}, as the file says",
        "picture": f"{video['resolution']}, {video['num_frames']} frames, {video['fps']:g} per second",
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items()) or "the file names none",
        "made": f"elsewhere, imported {_local_time(video)}",
        "file": _size(video["file_size_mb"]),
    }
