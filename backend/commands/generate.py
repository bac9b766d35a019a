"""`wan22 generate`, `extend` and `redecode`: a new video from a prompt, from images, or from an earlier one.

The options that describe a video are one class, whose fields have the names of the API.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from backend.commands.clips import Extras, GifOption, ShowOption, UpscaleOption, fetch_clips
from backend.commands.console.terminal import (
    JsonOption,
    OutputOption,
    ServerOption,
    any_server,
    check_file,
    check_target,
    finite,
    own_home,
)
from backend.commands.gallery import VideoId
from backend.commands.replay import named_video
from backend.core.requests.forms import Fit, OnLoraFailure, OnModelFailure, Scheduler
from backend.core.requests.rules import MAX_VARIATIONS
from backend.core.settings import Settings

_MODEL = "Model"
_LOOK = "What the model does"
_FILE = "The file"

EndImageOption = Annotated[Path | None, typer.Option("--end-image", help="Picture the video ends with.")]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", callback=finite, help="Frames per second [default: the model's own].", rich_help_panel=_FILE),
]
CrfOption = Annotated[
    int | None,
    typer.Option(
        "--crf",
        help="Quality of the file, 1 to 51; a lower number is better and larger [default: 17].",
        rich_help_panel=_FILE,
    ),
]

WebhookOption = Annotated[
    str | None,
    typer.Option(
        "--webhook",
        metavar="URL",
        help="An address that is told how it ended; its host must be in WAN22_OUTBOUND_HOSTS of the server.",
    ),
]


@dataclass(frozen=True)
class VideoOptions:
    """The options that `generate` and `extend` share, in the order of their help."""

    image_fit: Annotated[
        Fit | None,
        typer.Option(
            "--image-fit",
            help="How an image with another aspect than the video is fitted [default: crop].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    model_type: Annotated[str, typer.Option("--model", help="Model name, or auto.", rich_help_panel=_MODEL)] = "auto"
    loras: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="ID[:STRENGTH[:STRENGTH_2]]",
            help="Use a LoRA; the second strength is for the low-noise expert. May be repeated.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    on_lora_failure: Annotated[
        OnLoraFailure | None,
        typer.Option(
            "--on-lora-failure",
            help="Whether a LoRA that cannot be applied is left out or fails the task [default: skip].",
            rich_help_panel=_MODEL,
        ),
    ] = None
    on_model_failure: Annotated[
        OnModelFailure | None,
        typer.Option(
            "--on-model-failure",
            help="What happens when the model cannot be used [default: as the server is set, or fail].",
            rich_help_panel=_MODEL,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="ID",
            help="A LoRA that brings its own steps, guidance, shift and scheduler.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", help="Same seed, same video [default: random].", rich_help_panel=_LOOK)
    ] = None
    variations: Annotated[
        int | None,
        typer.Option(
            "--variations",
            min=1,
            max=MAX_VARIATIONS,
            help="Number of videos, with consecutive seeds [default: 1].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    steps: Annotated[
        int | None, typer.Option("--steps", help="Denoising steps [default: the model's own].", rich_help_panel=_LOOK)
    ] = None
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            callback=finite,
            help="Guidance scale (of the high-noise expert where there are two) [default: the model's own].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    guidance_scale_2: Annotated[
        float | None,
        typer.Option(
            "--guidance-2",
            callback=finite,
            help="Guidance scale of the low-noise expert [default: the model's own].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    guidance_start: Annotated[
        float | None,
        typer.Option(
            "--guidance-start",
            callback=finite,
            help="Guide from this share of the steps on, 0 to 1 [default: 0].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    guidance_end: Annotated[
        float | None,
        typer.Option(
            "--guidance-end",
            callback=finite,
            help="Stop guiding at this share of the steps, 0 to 1 [default: 1].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    flow_shift: Annotated[
        float | None,
        typer.Option(
            "--flow-shift",
            callback=finite,
            help="Shift of the noise schedule [default: the model's own].",
            rich_help_panel=_LOOK,
        ),
    ] = None
    scheduler: Annotated[
        Scheduler | None,
        typer.Option(
            "--scheduler", help="The sampler; dmd is for FastWan alone [default: unipc].", rich_help_panel=_LOOK
        ),
    ] = None
    negative_prompt: Annotated[
        str | None,
        typer.Option("--negative", help="What not to show [default: the model's own].", rich_help_panel=_LOOK),
    ] = None
    resolution: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH",
            help="Width and height in pixels [default: the model's own, or the shape of the image].",
            rich_help_panel=_FILE,
        ),
    ] = None
    num_frames: Annotated[
        int | None,
        typer.Option("--frames", help="Number of frames, 4k+1 [default: the model's own].", rich_help_panel=_FILE),
    ] = None
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", callback=finite, help="Length in seconds, instead of --frames.", rich_help_panel=_FILE
        ),
    ] = None
    fps: FpsOption = None
    crf: CrfOption = None
    keep_latents: Annotated[
        bool, typer.Option("--keep-latents", help="Keep the latents, for `wan22 redecode`.", rich_help_panel=_FILE)
    ] = False

    webhook: WebhookOption = None
    force: Annotated[
        bool,
        typer.Option("--force", help="Try it even if it does not seem to fit this machine.", rich_help_panel=_MODEL),
    ] = False

    def as_request(self) -> dict[str, Any]:
        """Return the API fields; None means the model's default."""
        return vars(self) | {
            "loras": parse_loras(self.loras),
            "keep_latents": self.keep_latents or None,
            "force": self.force or None,
        }


def with_video_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `video` by the options of `VideoOptions`."""
    hints, shared_hints = (get_type_hints(of, include_extras=True) for of in (command, VideoOptions))
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(f.name, kind, default=f.default, annotation=shared_hints[f.name])
        for f in fields(VideoOptions)
    ]
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += shared if name == "video" else [parameter.replace(kind=kind, annotation=hints[name])]

    @wraps(command)
    def run(**given: Any) -> None:
        video = VideoOptions(**{one.name: given.pop(one.name) for one in shared})
        command(video=video, **given)

    # typer reads options from the signature, and their types from the annotations.
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


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
    if not name or len(values) > 2 or not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"{text!r} is not ID[:STRENGTH[:STRENGTH_2]]", param_hint="--lora")
    return {"id": name} | dict(zip(("strength", "strength_2"), values, strict=False))


def parse_loras(texts: list[str] | None) -> list[dict[str, Any]] | None:
    """Read all `--lora` options; None without any."""
    return [parse_lora(text) for text in texts] if texts else None


@with_video_options
def generate(
    prompt: Annotated[
        str, typer.Argument(help='What to show, such as "a red circle moving right on a navy background".')
    ],
    output: OutputOption = None,
    image: Annotated[Path | None, typer.Option("--image", help="Picture the video starts with.")] = None,
    end_image: EndImageOption = None,
    *,
    video: VideoOptions,
    gif: GifOption = False,
    show: ShowOption = False,
    upscale: UpscaleOption = None,
    as_json: JsonOption = False,
    server: ServerOption = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Start a server for this run even if one is running elsewhere.")
    ] = False,
) -> None:
    """Generate a video with a running server, or with a temporary one."""
    request = {"prompt": prompt} | video.as_request()
    check_target(output)
    check_file(image, "--image")
    check_file(end_image, "--end-image")

    def check(settings: Settings) -> None:
        check_request(settings, request, image=image, end_image=end_image)

    with any_server(server, standalone=standalone, check=check) as client:
        submitted = client.submit(request, image=image, end_image=end_image)
        fetch_clips(client, submitted, output, Extras(gif, show, upscale, as_json))


@with_video_options
def extend(
    output_id: VideoId,
    prompt: Annotated[str | None, typer.Argument(help="What happens next [default: the same prompt].")] = None,
    output: OutputOption = None,
    end_image: EndImageOption = None,
    *,
    video: VideoOptions,
    gif: GifOption = False,
    show: ShowOption = False,
    upscale: UpscaleOption = None,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Make a video that starts with the last frame of an earlier one and inherits its settings."""
    request = {"prompt": prompt} | video.as_request()
    check_target(output)
    check_file(end_image, "--end-image")
    name = named_video(output_id)
    with any_server(server) as client:
        submitted = client.extend(client.video_id(name), request, end_image=end_image)
        fetch_clips(client, submitted, output, Extras(gif, show, upscale, as_json))


def redecode(
    output_id: VideoId,
    fps: FpsOption = None,
    crf: CrfOption = None,
    output: OutputOption = None,
    webhook: WebhookOption = None,
    gif: GifOption = False,
    show: ShowOption = False,
    upscale: UpscaleOption = None,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Encode another file from a video's kept latents, without denoising again."""
    check_target(output)
    name = named_video(output_id)
    with any_server(server) as client:
        submitted = client.redecode(client.video_id(name), {"fps": fps, "crf": crf, "webhook": webhook})
        fetch_clips(client, submitted, output, Extras(gif, show, upscale, as_json))


#: Fields of a draft that have another form in a request, and that the server alone can judge.
_NOT_JUDGED: Final = {"loras", "preset", "on_lora_failure", "on_model_failure", "webhook"}


def check_request(
    settings: Settings, request: dict[str, Any], *, image: Path | None = None, end_image: Path | None = None
) -> None:
    """Refuse what the model cannot make, before a server is started for it.

    The server decides again, with the images and the LoRAs.

    Raises:
        InvalidRequest: a value does not fit the model.
        ModelUnavailable: no model is installed that could make it.
    """
    from backend.core.config.file import ConfigFile
    from backend.core.config.generation_policy import GenerationMode, stored_policy
    from backend.core.planning.hardware import detect_hardware
    from backend.core.requests.forms import ImageRef, RequestDraft
    from backend.core.requests.frame_size import parse_resolution
    from backend.core.requests.rules import resolve_request
    from backend.models.folder.manager import ModelManager
    from backend.services.model_choice import choose_model

    home = own_home()
    known = {field.name for field in fields(RequestDraft)} - _NOT_JUDGED
    values = {name: value for name, value in request.items() if name in known and value is not None}
    width, height = (None, None) if request["resolution"] is None else parse_resolution(request["resolution"])
    # Only their presence matters here: an image without a size would decide the shape of the video.
    some = ImageRef("", 1, 1)
    draft = RequestDraft(
        **values,
        model=request["model_type"],
        width=width,
        height=height,
        image=some if image else None,
        end_image=some if end_image else None,
    )
    models = ModelManager(home, has_gpu=lambda: bool(detect_hardware(settings.paths.root).gpus))
    spec = choose_model(models, draft).spec
    policy = stored_policy(ConfigFile(home.config_file)).current()
    allowed = request.get("on_model_failure") or policy.on_model_failure
    refused = policy.mode is GenerationMode.REAL and allowed == OnModelFailure.FAIL
    if refused and not (settings.auto_download or spec.embedded):
        models.folder(spec)
    if image is not None:
        width, height = width or spec.width, height or spec.height
    resolve_request(spec, replace(draft, width=width, height=height))
