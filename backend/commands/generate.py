"""The options that say what a video shall be, shared by the commands that make one, and their words in the API.

`wan22 generate` and `wan22 extend`: a new video from a prompt, from images, or from the end of an earlier one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from backend.commands import generate as options
from backend.commands.clips import fetch_clips
from backend.commands.terminal import OutputOption, ServerOption, any_server, check_file, check_target
from backend.core.requests import Fit, OnLoraFailure

_MODEL = "Model"
_LOOK = "What the model does"
_FILE = "The file"

ModelOption = Annotated[str, typer.Option("--model", help="Model name, or auto.", rich_help_panel=_MODEL)]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="ID[:STRENGTH[:STRENGTH_2]]",
        help="Use a LoRA; the second strength is for the low-noise expert. May be repeated.",
        rich_help_panel=_MODEL,
    ),
]
OnLoraFailureOption = Annotated[
    OnLoraFailure | None,
    typer.Option(
        "--on-lora-failure",
        help="Whether a LoRA that cannot be applied is left out or fails the task [default: skip].",
        rich_help_panel=_MODEL,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="ID",
        help="A LoRA that brings its own steps, guidance, shift and scheduler.",
        rich_help_panel=_MODEL,
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Same seed, same video [default: random].", rich_help_panel=_LOOK)
]
VariationsOption = Annotated[
    int | None,
    typer.Option("--variations", min=1, help="Make so many, with seeds that follow each other.", rich_help_panel=_LOOK),
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Denoising steps.", rich_help_panel=_LOOK)]
GuidanceOption = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale (high-noise expert).", rich_help_panel=_LOOK)
]
Guidance2Option = Annotated[
    float | None, typer.Option("--guidance-2", help="Guidance scale of the low-noise expert.", rich_help_panel=_LOOK)
]
GuidanceStartOption = Annotated[
    float | None,
    typer.Option("--guidance-start", help="Guide from this share of the steps on, 0 to 1.", rich_help_panel=_LOOK),
]
GuidanceEndOption = Annotated[
    float | None,
    typer.Option("--guidance-end", help="Stop guiding at this share of the steps, 0 to 1.", rich_help_panel=_LOOK),
]
FlowShiftOption = Annotated[
    float | None, typer.Option("--flow-shift", help="Shift of the noise schedule.", rich_help_panel=_LOOK)
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="unipc or euler; dmd for FastWan.", rich_help_panel=_LOOK)
]
NegativeOption = Annotated[str | None, typer.Option("--negative", help="What not to show.", rich_help_panel=_LOOK)]
ImageFitOption = Annotated[
    Fit | None,
    typer.Option(
        "--image-fit",
        help="What happens to an image of another shape than the video [default: crop].",
        rich_help_panel=_LOOK,
    ),
]
SizeOption = Annotated[str | None, typer.Option("--size", help="WIDTHxHEIGHT in pixels.", rich_help_panel=_FILE)]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Number of frames, 4k+1.", rich_help_panel=_FILE)]
FpsOption = Annotated[float | None, typer.Option("--fps", help="Frames per second.", rich_help_panel=_FILE)]
CrfOption = Annotated[
    int | None,
    typer.Option("--crf", help="Quality of the file; a lower number is better and larger.", rich_help_panel=_FILE),
]
KeepLatentsOption = Annotated[
    bool, typer.Option("--keep-latents", help="Keep the latents, for `wan22 redecode`.", rich_help_panel=_FILE)
]


def parse_lora(text: str) -> dict[str, Any]:
    """Read `ID[:STRENGTH[:STRENGTH_2]]` into a LoRA of the API.

    Raises:
        typer.BadParameter: it has another form.
    """
    name, *strengths = text.split(":")
    try:
        values = [float(strength) for strength in strengths]
    except ValueError:
        values = [0.0] * 3
    if not name or len(values) > 2:
        raise typer.BadParameter(f"{text!r} is not ID[:STRENGTH[:STRENGTH_2]]", param_hint="--lora")
    return {"id": name} | dict(zip(("strength", "strength_2"), values, strict=False))


def parse_loras(texts: list[str] | None) -> list[dict[str, Any]] | None:
    """Read all `--lora` options; None without any."""
    return [parse_lora(text) for text in texts] if texts else None


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
