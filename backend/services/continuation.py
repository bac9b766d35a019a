"""Requests that build on a finished video: the next clip of a story, or the same clip re-encoded.

Reads the earlier video and its record and drafts requests; `generation_service` validates and queues them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.errors.lookups import LatentsNotKept
from backend.core.errors.requests import InvalidRequest
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import check_crf, check_fps
from backend.services.media.images import InputStore
from backend.store.gallery.outputs import OutputStore

#: Length of the extension of a single-frame clip, in frames.
SHORTEST = 5
#: Chain length, in clips, at which colours and shapes have usually drifted visibly.
LONG_CHAIN = 4


@dataclass(frozen=True, slots=True)
class Extension:
    """The draft of a follow-up clip."""

    draft: RequestDraft
    before: ModelSpec | None  #: the model of the earlier clip; None if unknown on this machine
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Before:
    """What an extension inherits from the earlier clip; None = nothing."""

    width: int
    height: int
    prompt: str
    model: str
    fps: float | None = None
    num_frames: int | None = None


class Continuation:
    """Turns finished videos into follow-up requests."""

    def __init__(self, home: Home, outputs: OutputStore, inputs: InputStore) -> None:
        self._home = home
        self._outputs = outputs
        self._inputs = inputs

    def extension(self, output_id: str, draft: RequestDraft) -> Extension:
        """Draft a clip that starts from the last frame of a video and inherits every unset option from it.

        Raises:
            OutputNotFound, OutputFileMissing: the video is unknown, or its file is gone.
            InvalidRequest: the request has an image, but an extension always starts from the last frame.
        """
        from backend.services.media.video_encoder import last_frame  # loads FFmpeg only when needed

        before = self._before(output_id)
        if draft.image is not None:
            raise InvalidRequest("The image of an extension is the video's last frame", details={"field": "image"})
        measured = draft.num_frames is not None or draft.seconds is not None
        draft = replace(
            draft,
            prompt=draft.prompt or before.prompt,
            image=self._inputs.keep(last_frame(self._outputs.video_path(output_id))),
            width=before.width if draft.width is None else draft.width,
            height=before.height if draft.height is None else draft.height,
            fps=before.fps if draft.fps is None else draft.fps,
            num_frames=draft.num_frames if measured else before.num_frames and max(before.num_frames, SHORTEST),
        )
        notes = [f"the clip starts from the last frame of {output_id}"]
        if (links := self._links(output_id)) >= LONG_CHAIN:
            notes.append(
                f"this is clip {links + 1} of a chain: colours and shapes drift from clip to clip; starting again "
                "from a still image looks sharper"
            )
        return Extension(draft, models_in_force().get(before.model), tuple(notes))

    def redecoding(self, output_id: str, *, fps: float | None, crf: int | None) -> GenerationRequest:
        """Return a request that decodes the kept latents of a video again, with different file settings.

        Raises:
            OutputNotFound: there is no such video.
            LatentsNotKept: its latents were not kept.
            InvalidRequest: a setting is out of range.
        """
        output = self._outputs.get(output_id)
        if output.imported:
            raise LatentsNotKept
        record = GenerationRequest.from_json(output.metadata.get("request"))
        source = record.latents_of or output_id
        if not self._home.latents_of(source).is_file():
            raise LatentsNotKept
        return replace(
            record,
            latents_of=source,
            keep_latents=False,
            fps=record.fps if fps is None else check_fps(fps),
            crf=record.crf if crf is None else check_crf(crf),
        )

    def _before(self, output_id: str) -> _Before:
        output = self._outputs.get(output_id)
        if output.imported:  # made by whatever; length and frame rate are the model's own
            request = output.metadata.get("request") or {}
            return _Before(output.width, output.height, str(request.get("prompt", "")), str(request.get("model", "")))
        record = GenerationRequest.from_json(output.metadata.get("request"))
        return _Before(record.width, record.height, record.prompt, record.model, record.fps, record.num_frames)

    def _links(self, output_id: str) -> int:
        """Count the clips of the chain that ends here, inclusive; a deleted clip ends the count."""
        links, link = 0, self._outputs.find(output_id)
        while link is not None and links <= LONG_CHAIN:
            links += 1
            before = (link.metadata.get("request") or {}).get("extends")
            link = None if before is None else self._outputs.find(before)
        return links
