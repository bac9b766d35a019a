"""`wan22 generate` and `wan22 extend`: a new video from a prompt, from images, or from the end of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from backend.commands import options
from backend.commands.clips import fetch_clips
from backend.commands.terminal import OutputOption, ServerOption, any_server, check_file, check_target


def generate(
    prompt: Annotated[
        str, typer.Argument(help='What to show, such as "a red circle moving right on a navy background".')
    ],
    output: OutputOption = None,
    image: Annotated[Path | None, typer.Option("--image", help="Picture the video starts with.")] = None,
    end_image: Annotated[Path | None, typer.Option("--end-image", help="Picture the video ends with.")] = None,
    image_fit: options.ImageFitOption = None,
    model: options.ModelOption = "auto",
    lora: options.LoraOption = None,
    on_lora_failure: options.OnLoraFailureOption = None,
    preset: options.PresetOption = None,
    seed: options.SeedOption = None,
    variations: options.VariationsOption = None,
    steps: options.StepsOption = None,
    guidance: options.GuidanceOption = None,
    guidance_2: options.Guidance2Option = None,
    guidance_start: options.GuidanceStartOption = None,
    guidance_end: options.GuidanceEndOption = None,
    flow_shift: options.FlowShiftOption = None,
    scheduler: options.SchedulerOption = None,
    negative: options.NegativeOption = None,
    size: options.SizeOption = None,
    frames: options.FramesOption = None,
    fps: options.FpsOption = None,
    crf: options.CrfOption = None,
    keep_latents: options.KeepLatentsOption = False,
    server: ServerOption = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Start a server for this run even if one is running elsewhere.")
    ] = False,
) -> None:
    """Generate a video through a running server, or by itself when there is none."""
    wish: dict[str, Any] = {
        "prompt": prompt,
        "model_type": model,
        "image_fit": image_fit,
        "loras": options.parse_loras(lora),
        "on_lora_failure": on_lora_failure,
        "preset": preset,
        "seed": seed,
        "variations": variations,
        "steps": steps,
        "guidance_scale": guidance,
        "guidance_scale_2": guidance_2,
        "guidance_start": guidance_start,
        "guidance_end": guidance_end,
        "flow_shift": flow_shift,
        "scheduler": scheduler,
        "negative_prompt": negative,
        "resolution": size,
        "num_frames": frames,
        "fps": fps,
        "crf": crf,
        "keep_latents": keep_latents or None,
    }
    check_target(output)
    check_file(image, "--image")
    check_file(end_image, "--end-image")
    with any_server(server, standalone=standalone) as client:
        fetch_clips(client, client.submit(wish, image=image, end_image=end_image), output)


def extend(
    output_id: Annotated[str, typer.Argument(help="Id of the video to go on from.")],
    prompt: Annotated[str | None, typer.Argument(help="What happens next [default: the same prompt].")] = None,
    output: OutputOption = None,
    end_image: Annotated[Path | None, typer.Option("--end-image", help="Picture the video ends with.")] = None,
    image_fit: options.ImageFitOption = None,
    model: options.ModelOption = "auto",
    lora: options.LoraOption = None,
    on_lora_failure: options.OnLoraFailureOption = None,
    preset: options.PresetOption = None,
    seed: options.SeedOption = None,
    variations: options.VariationsOption = None,
    steps: options.StepsOption = None,
    guidance: options.GuidanceOption = None,
    guidance_2: options.Guidance2Option = None,
    guidance_start: options.GuidanceStartOption = None,
    guidance_end: options.GuidanceEndOption = None,
    flow_shift: options.FlowShiftOption = None,
    scheduler: options.SchedulerOption = None,
    negative: options.NegativeOption = None,
    size: options.SizeOption = None,
    frames: options.FramesOption = None,
    fps: options.FpsOption = None,
    crf: options.CrfOption = None,
    keep_latents: options.KeepLatentsOption = False,
    server: ServerOption = None,
) -> None:
    """Make a video that starts with the last frame of an earlier one. What is left out is as in that one."""
    wish: dict[str, Any] = {
        "prompt": prompt,
        "model_type": model,
        "image_fit": image_fit,
        "loras": options.parse_loras(lora),
        "on_lora_failure": on_lora_failure,
        "preset": preset,
        "seed": seed,
        "variations": variations,
        "steps": steps,
        "guidance_scale": guidance,
        "guidance_scale_2": guidance_2,
        "guidance_start": guidance_start,
        "guidance_end": guidance_end,
        "flow_shift": flow_shift,
        "scheduler": scheduler,
        "negative_prompt": negative,
        "resolution": size,
        "num_frames": frames,
        "fps": fps,
        "crf": crf,
        "keep_latents": keep_latents or None,
    }
    check_target(output)
    check_file(end_image, "--end-image")
    with any_server(server) as client:
        fetch_clips(client, client.extend(output_id, wish, end_image=end_image), output)


def redecode(
    output_id: Annotated[str, typer.Argument(help="Id of a video that was made with --keep-latents.")],
    fps: options.FpsOption = None,
    crf: options.CrfOption = None,
    output: OutputOption = None,
    server: ServerOption = None,
) -> None:
    """Make another file from the kept latents of a video, without generating again."""
    check_target(output)
    with any_server(server) as client:
        fetch_clips(client, client.redecode(output_id, {"fps": fps, "crf": crf}), output)
