"""Selects the model for a request, named or `auto`, and explains the choice.

Considers the images and size of the request and the installed models; opens no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.core.catalogue.spec import AUTO
from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.errors.requests import ImageNotAccepted, ImageRequired
from backend.core.requests.forms import RequestDraft
from backend.core.requests.frame_size import makes_exactly
from backend.core.requests.rules import check_images
from backend.models.folder.manager import ModelManager


@dataclass(frozen=True, slots=True)
class Choice:
    """The model for a request, and why it was chosen."""

    spec: ModelSpec
    reasons: tuple[str, ...]  #: sentences; empty when the request named the model
    alternatives: tuple[ModelSpec, ...]  #: other installed models that could serve it


def choose_model(models: ModelManager, draft: RequestDraft, *, before: ModelSpec | None = None) -> Choice:
    """Find the model for a request.

    Args:
        models: the installed models.
        draft: the request; its model may be `auto`.
        before: the model of the video being extended; preferred if it can make this request.

    Raises:
        UnknownModel: no model has this name.
        ImageRequired, ImageNotAccepted: the model does not fit the images of the request.
        ModelUnavailable: no text-to-video model is installed.
    """
    image, end_image = draft.image is not None, draft.end_image is not None
    if draft.model.strip().lower() != AUTO:
        spec = find_model(draft.model)
        check_images(spec, image=image, end_image=end_image)
        return Choice(spec, (), ())
    if end_image and not image:
        raise ImageRequired("An end image needs a start image", details={"field": "image"})
    fitting = models.fitting(image=image, end_image=end_image)
    if not fitting and image:
        kind = "starts from one image and ends with another" if end_image else "takes an image"
        raise ImageNotAccepted(
            f"No installed model {kind}",
            suggestions=("Leave the image out.", *(f"Use `{spec.id}` with text alone." for spec in models.fitting())),
        )
    if not fitting:
        return Choice(models.default(), (), ())  # raises if there is none
    able = [spec for spec in fitting if makes_exactly(spec, draft.width, draft.height)] or fitting
    spec = before if before in able and before is not None else able[0]
    given = "a start and an end image were given" if end_image else "an image was given"
    reasons = [given if image else "no image was given"]
    if spec is before:
        reasons.append(f"{spec.id} generated the clip that this one continues")
    elif len(fitting) == 1:
        reasons.append(f"{spec.id} is the only installed model for that")
    else:
        reasons.append(f"{spec.id} is the best of the {len(fitting)} installed models for that on this machine")
    if len(able) < len(fitting):
        reasons.append(f"it can generate {draft.width}x{draft.height} exactly")
    return Choice(spec, tuple(reasons), tuple(one for one in fitting if one is not spec))
