"""The options that say what a video shall be, shared by the commands that make one, and their words in the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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
