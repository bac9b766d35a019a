"""Generation routes: submit, estimate, model detection, and the input images of requests.

An input image is uploaded once and referenced by id afterwards.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, File, Path, Query, Request, UploadFile
from fastapi.responses import Response

from backend.api.http.addressing import current_links
from backend.api.http.deps import ServicesDep, TaskId
from backend.api.http.errors import answer_to
from backend.api.http.media import MediaFile
from backend.api.http.routing import Routes
from backend.api.http.shapes import download_first, known, shown_model
from backend.api.planning.estimate import Estimated, estimated
from backend.api.tasks.body import SubmitBody, read_submission, request_body_docs
from backend.api.tasks.shapes import (
    Detected,
    GenerateStarted,
    StoredInput,
    Submitted,
    TaskInfo,
    minutes,
    requirements,
    task_info,
)
from backend.core.catalogue.spec import AUTO
from backend.core.catalogue.table import find_model
from backend.core.domain import TaskStatus
from backend.core.errors.requests import ImageNotAccepted, ImageRequired, InvalidRequest, UnknownModel
from backend.core.requests.forms import ImageRef, RequestDraft
from backend.core.requests.prompts import LEGACY_PROMPT_CHARS, clean_prompt
from backend.core.requests.rules import check_images
from backend.services.downloads.state import waits_for_resume
from backend.services.submission import Submission

router = Routes(tags=["generation"])

BodyDep = Annotated[SubmitBody, Depends(read_submission)]


async def read_question(request: Request) -> SubmitBody:
    """Read the body of a request that is only estimated, and so needs no key. Raises like `read_submission`."""
    return await read_submission(request)


QuestionDep = Annotated[SubmitBody, Depends(read_question)]
_NO_ENHANCEMENT = "prompt enhancement is not offered yet: the prompt is used as written"
image_routes = Routes(prefix="/inputs", tags=["inputs"])


@router.post("/generation/submit", summary="Queue a video", openapi_extra=request_body_docs())
def submit(body: BodyDep, services: ServicesDep) -> Submitted | Estimated:
    """Check the request by the rules of its model and queue it; the task is on disk when this answers.

    Nothing is queued when the answer is an error. Values that were changed to fit are named in `adjustments`.
    With `dry_run` the answer is an estimate, and nothing is queued either.
    """
    if body.dry_run:
        return estimate(body, services)
    return submitted(services.generation.submit(body.draft(services.inputs)), body)


@router.post("/generation/estimate", summary="What a video would take", openapi_extra=request_body_docs())
def estimate(body: QuestionDep, services: ServicesDep) -> Estimated:
    """Say what the request would become, the memory plan that it begins with, what it takes and why; queue nothing.

    The body is that of submit. A request that does not fit this machine is answered too, with one that would.
    """
    return estimated(services.generation.estimate(body.draft(services.inputs)))


def submitted(queued: Submission, body: SubmitBody | None = None) -> Submitted:
    """Describe the queued tasks in the shape shared by submit, extend and redecode."""
    task, notes, span = queued.task, list(queued.task.adjustments), queued.until_done
    asks_auto = body is not None and body.model_type.strip().lower() == AUTO
    if body is not None and body.enable_prompt_enhancement:
        notes.append(_NO_ENHANCEMENT)
    return Submitted(
        task_id=task.id,
        task_ids=[one.id for one in queued.tasks],
        status=task.status,
        message=_message(queued),
        # A client that has named the model knows its id.
        detected_model_type=shown_model(queued.model) if asks_auto else queued.model,
        model=queued.model,
        reasons=list(queued.reasons),
        queue_position=queued.queue_position,
        estimated_time=None if span is None else round(span.seconds, 1),
        estimated_time_minutes=None if span is None else minutes(span.seconds),
        estimated_time_basis=None if span is None else span.basis.value,
        adjustments=notes,
        download=download_first(queued.fetch),
        parameters=known(task.request)
        | {
            "model_type": queued.model,
            "resolution": f"{task.request['width']}x{task.request['height']}",
            "lora_path": "" if body is None else body.lora_path,
            "lora_strength": 1.0 if body is None else body.lora_strength,
        },
    )


@router.get("/generation/models/detect", summary="Which model `auto` would take")
def detect_model(
    services: ServicesDep,
    prompt: Annotated[str, Query(description="The prompt")],
    has_image: Annotated[bool, Query(description="Whether a start image will be sent")] = False,
    has_end_image: Annotated[bool, Query(description="Whether an end image will be sent")] = False,
) -> Detected:
    """Say which of the models on this server a request would go to, and why."""
    # Only the presence of images matters here.
    some = ImageRef("", 1, 1)
    draft = RequestDraft(
        prompt, image=some if has_image or has_end_image else None, end_image=some if has_end_image else None
    )
    choice = services.generation.choice(draft)
    return Detected(
        detected_model_type=shown_model(choice.spec.id),
        model=choice.spec.id,
        confidence=1.0,
        explanation=list(choice.reasons),
        requirements=requirements(choice.spec),
        alternatives=_others(shown_model(choice.spec.id), [shown_model(spec.id) for spec in choice.alternatives]),
    )


@router.post(
    "/generate",
    response_model=GenerateStarted,
    summary="Queue a video (older form of submit)",
    openapi_extra=request_body_docs(),
)
def generate(body: BodyDep, services: ServicesDep, request: Request) -> GenerateStarted | Response:
    """Queue a video. The same as submit with a shorter answer; some refusals are 400 here, as they always were."""
    if body.dry_run:
        raise InvalidRequest("dry_run belongs to /api/v1/generation/submit", details={"field": "dry_run"})
    blank = bool(body.prompt) and not body.prompt.strip()
    if not blank and body.prompt:
        clean_prompt("prompt", body.prompt, LEGACY_PROMPT_CHARS)
    if (refusal := _wrong_mode(body)) is not None:
        return answer_to(refusal, request.scope, status=400)
    try:
        draft = body.draft(services.inputs)
    except InvalidRequest as error:
        return answer_to(error, request.scope, status=400)
    try:
        queued = services.generation.submit(draft)
    except (ImageNotAccepted, ImageRequired) as error:
        return answer_to(error, request.scope, status=400)
    except InvalidRequest as error:
        return answer_to(error, request.scope, status=400 if blank else None)
    return GenerateStarted(
        task_id=queued.task.id,
        status=queued.task.status,
        message=_message(queued),
        estimated_time_minutes=None if queued.until_done is None else minutes(queued.until_done.seconds),
    )


def _wrong_mode(body: SubmitBody) -> InvalidRequest | None:
    """Judge mode and image before the image is read, in the words that clients of this path compare."""
    try:
        spec = find_model(body.model_type)
        check_images(spec, image=body.has_image, end_image=False)
    except UnknownModel:  # or `auto`
        return None
    except ImageNotAccepted:
        sentence = "T2V mode does not accept image input. Use I2V or TI2V for image-based generation."
        return ImageNotAccepted(sentence, details={"field": "image"})
    except ImageRequired:
        return ImageRequired(f"Image is required for {spec.mode.upper()} mode", details={"field": "image"})
    return None


@router.get("/generate/{task_id}", summary="One task (older path)")
def generate_status(task_id: TaskId, services: ServicesDep) -> TaskInfo:
    """Show a task; the same as `GET /api/v1/queue/{task_id}`."""
    task = services.tasks.get(task_id)
    return task_info(task, waits_for=services.waiting([task]).reason(task), in_full=True)


def _others(taken: str, models: list[str]) -> list[str]:
    """Return each of the other ids once: several models may belong to one family."""
    return [one for one in dict.fromkeys(models) if one != taken]


def _message(queued: Submission) -> str:
    what = "Generation task" if len(queued.tasks) == 1 else f"{len(queued.tasks)} generation tasks"
    if queued.task.download_paused:
        return f"{what} queued. {waits_for_resume(queued.model)}"
    if queued.task.status is TaskStatus.PENDING and queued.queue_position is not None:
        first = "" if queued.fetch is None else f"; the files of {queued.model} are fetched first"
        return f"{what} queued, number {queued.queue_position} in the queue{first}"
    return f"Generation task is {queued.task.status}"


@image_routes.create("", summary="Store an image")
def store_input(
    services: ServicesDep, image: Annotated[UploadFile, File(description="JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF")]
) -> StoredInput:
    """Store an image and return its id, for `image_id` of a request; the same image has the same id.

    It is stored upright, in sRGB, with transparency on white, and reduced to 4096 pixels a side. An image that no
    request uses is deleted after an hour.
    """
    stored = services.inputs.store(image.file.read())
    return StoredInput(
        id=stored.id,
        width=stored.width,
        height=stored.height,
        url=current_links().to_media(f"/api/v1/inputs/{stored.id}"),
        adjustments=list(stored.notes),
    )


@image_routes.get(
    "/{image_id}",
    summary="A stored image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "A PNG"}},
)
def get_input(image_id: Annotated[str, Path(description="Id of the image")], services: ServicesDep) -> Response:
    """Send a stored image."""
    return MediaFile(services.inputs.path(image_id), "image/png", etag=image_id)
