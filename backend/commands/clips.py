"""From submitted tasks to files: follow each with a progress bar, save the video, report how it was made.

Shared by every command that makes videos. A task that fails does not keep the others of its request from being saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from backend.commands.progress_bar import follow_with_bar
from backend.commands.terminal import err, out
from backend.core.errors import GenerationFailed, TaskCancelled, WanError

if TYPE_CHECKING:
    from backend.commands.client import ApiClient


def fetch_clips(client: ApiClient, submitted: dict[str, Any], output: Path | None) -> list[Path]:
    """Wait for every task of a submit, save its video and report it; return the files.

    Raises:
        TaskCancelled: the user stopped it here (unfinished tasks are cancelled), or somebody cancelled it.
        GenerationFailed: a task failed; the videos of the others are saved.
    """
    for reason in submitted.get("reasons") or []:
        err.print(f"model: {escape(reason)}", style="dim")
    for note in submitted.get("adjustments") or []:
        err.print(f"note: {escape(note)}", style="yellow")
    if (first := submitted.get("download")) is not None:
        still = f", {first['bytes'] / 1e9:.2f} GB remaining" if "bytes" in first else ""
        err.print(f"model: {escape(first['repository'])} is downloaded first{still}", style="yellow")
    task_ids: list[str] = submitted.get("task_ids") or [submitted["task_id"]]
    saved: list[Path] = []
    failure: WanError | None = None
    for number, task_id in enumerate(task_ids, 1):
        label = f"{number}/{len(task_ids)} " if len(task_ids) > 1 else ""
        try:
            task = follow_with_bar(client.follow(task_id), err, label)
        except KeyboardInterrupt:
            _cancel(client, task_ids[number - 1 :])
            raise TaskCancelled("Cancelled.") from None
        ended = _ended_badly(task)
        if ended is not None:
            failure = failure or ended
            if len(task_ids) > 1:
                err.print(f"{label}{escape(ended.message)}", style="red")
            continue
        target = target_of(output, task_id, number, len(task_ids))
        client.save_video(task_id, target)
        saved.append(target)
        _report(client.call("GET", f"/api/v1/outputs/{task_id}"), target)
    if failure is not None:
        raise failure
    return saved


def target_of(output: Path | None, task_id: str, number: int, count: int) -> Path:
    """Return where a task's video goes: as asked; `name-1.mp4`, `name-2.mp4` … where there are several."""
    if output is None:
        return Path(f"wan22-{task_id[:8]}.mp4")
    return output if count == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")


def _ended_badly(task: dict[str, Any]) -> WanError | None:
    if task["status"] == "cancelled":
        return TaskCancelled("The task was cancelled.")
    if task["status"] == "failed":
        return GenerationFailed(
            task.get("error_message") or "The task failed.", suggestions=tuple(task.get("suggestions") or ())
        )
    return None


def _cancel(client: ApiClient, task_ids: list[str]) -> None:
    for task_id in task_ids:
        try:
            client.call("POST", f"/api/v1/queue/{task_id}/cancel", json={})
        except WanError as error:  # it has just finished, or the server is gone; try the next one
            err.print(f"{task_id}: {escape(error.message)}", style="dim")


def _report(video: dict[str, Any], target: Path) -> None:
    made = video["generation_params"]
    out.print(f"[bold green]{escape(str(target))}[/]  {video['resolution']}, {made['num_frames']} frames, H.264")
    out.print(
        f"made by {made['model']}, seed {made['seed']}, {made['steps']} steps, {made['scheduler']}, "
        f"guidance {made['guidance_scale']:g}"
        + (f"/{made['guidance_scale_2']:g}" if made.get("guidance_scale_2") is not None else "")
        + f", in {video['generation_seconds']:.1f} s"
    )
    out.print(f"id {video['id']}" + (", latents kept" if video.get("has_latents") else ""), style="dim")
    for lora in video.get("loras") or []:
        reason = f": {lora['reason']}" if lora.get("reason") else ""
        out.print(f"LoRA {escape(lora['id'])} {escape(lora['outcome'] + reason)}", style="dim")
    for warning in video.get("warnings") or []:
        err.print(f"warning: {escape(warning)}", style="yellow")
