"""What this server can make: its models, and the limits of a request over all of them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.models.status import ModelInfo, max_resolution, model_info
from backend.core.requests.prompts import MAX_PROMPT_CHARS
from backend.core.requests.rules import MAX_STEPS
from backend.services.media.images import MAX_IMAGE_BYTES

router = Routes(prefix="/generation", tags=["generation"])

#: The sizes that the form of the earlier application offers, width and height.
_OFFERED = ((1280, 720), (1920, 1080), (854, 480), (1024, 576))


class Capabilities(BaseModel):
    """What this server can make."""

    supported_models: list[str] = Field(description="Ids of the models that can be used now")
    models_info: dict[str, ModelInfo]
    supported_resolutions: list[str] = Field(
        description="The largest size of each usable model, and those of older clients' four that one of them makes"
    )
    supported_formats: list[str]
    max_steps: int
    min_steps: int
    default_steps: int | None = Field(None, description="Of the model that `auto` takes for text")
    max_prompt_length: int
    max_image_size_mb: int
    supported_image_formats: list[str]
    features: dict[str, bool]


@router.get("/capabilities", summary="What this server can make")
def capabilities(services: ServicesDep) -> Capabilities:
    """List the models that can be used, and the limits of a request."""
    from backend.services.media.pictures import FORMATS  # its libraries are needed only where a picture is read

    usable = [state for state in services.models.states() if state.available]
    specs = [state.spec for state in usable]
    most = max((spec.max_pixels for spec in specs), default=0)
    sizes = [f"{width}x{height}" for width, height in _OFFERED if width * height <= most]
    sizes += [max_resolution(spec) for spec in specs]
    return Capabilities(
        supported_models=[spec.id for spec in specs],
        models_info={state.spec.id: model_info(state) for state in usable},
        supported_resolutions=list(dict.fromkeys(sizes)),
        supported_formats=["mp4"],
        max_steps=MAX_STEPS,
        min_steps=1,
        default_steps=services.models.default().steps if any(not spec.needs_image for spec in specs) else None,
        max_prompt_length=MAX_PROMPT_CHARS,
        max_image_size_mb=MAX_IMAGE_BYTES // 2**20,
        supported_image_formats=list(FORMATS),
        features={
            "text_to_video": any(not spec.needs_image for spec in specs),
            "image_to_video": any(spec.takes_image for spec in specs),
            "end_image": any(spec.takes_end_image for spec in specs),
            "lora": True,
            "prompt_enhancement": True,
            "resume": True,
            "extend": any(spec.takes_image for spec in specs),
        },
    )
