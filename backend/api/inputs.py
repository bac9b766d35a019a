"""Routes of the images that requests start from: sent once, named by id afterwards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, UploadFile
from fastapi.responses import Response

from backend.api.deps import ServicesDep
from backend.api.media import MediaFile
from backend.api.schemas import StoredInput

router = APIRouter(prefix="/inputs", tags=["inputs"])


@router.post("", response_model=StoredInput, summary="Store an image")
def store_input(
    services: ServicesDep, image: Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF")]
) -> StoredInput:
    """Keep an image and return its id, for `image_id` of a request; the same image has the same id.

    It is turned upright, and white shows through where it is transparent. An image that no request names is
    deleted after a while.
    """
    stored = services.inputs.store(image.file.read())
    return StoredInput(id=stored.id, width=stored.width, height=stored.height, url=f"/api/v1/inputs/{stored.id}")


@router.get(
    "/{image_id}",
    summary="A stored image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "A PNG"}},
)
def get_input(image_id: Annotated[str, Path(description="Id of the image")], services: ServicesDep) -> Response:
    """Send a stored image."""
    return MediaFile(services.inputs.path(image_id), "image/png", etag=image_id)
