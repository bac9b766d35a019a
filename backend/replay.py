"""The record inside a video of ours: what to ask for to get the same video again, and what may have changed since.

Knows the record's shape, an older one's too; talks to no server and looks at no frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.core.errors import WanError
from backend.core.model_integration_bridge import METADATA_FORMAT, PRODUCT
from backend.core.requests import AFTER_DENOISING, GenerationRequest

#: Values that a repeated request leaves out: it is a new one, and what they stand for is in its other values.
_LEFT_OUT = {"latents_of", "extends", "preset"}
#: What of a result says how it was computed.
_COMPUTATION = ("attention", "precision")
_ABSENT = "-"


class NoRecord(WanError):
    """This file does not say what made it."""

    code = "no_record"
    category = "input_validation"
    suggestions = (
        "Give an MP4 that wan22 made. A file that was converted or sent through a chat has lost its record.",
    )


@dataclass(frozen=True, slots=True)
class Factor:
    """One thing that decides the frames, as it was and as it is."""

    name: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """Whether it has not changed."""
        return self.then == self.now


@dataclass(frozen=True, slots=True)
class Record:
    """What a video says about itself."""

    request: GenerationRequest
    values: dict[str, Any]  #: the whole record

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read the record of a video file.

        Raises:
            NoRecord: it is not there, no video, not ours, or made by a newer version.
        """
        from backend.services.media.video_encoder import read_metadata

        if not path.is_file():
            raise NoRecord(f"There is no file {path}", suggestions=("Correct the path.",))
        values = read_metadata(path)
        if values is None or values.get("product") != PRODUCT:
            raise NoRecord(f"{path} has no record of wan22 inside")
        if values.get("format", 0) > METADATA_FORMAT:
            raise NoRecord(f"{path} was made by a newer version", suggestions=("Update wan22.",))
        try:
            return cls(GenerationRequest.from_json(values["request"]), values)
        except (KeyError, TypeError, ValueError) as error:
            raise NoRecord(
                f"The record in {path} cannot be read by this version ({values.get('version', 'unknown')} made it)",
                suggestions=("Use the version that made it.",),
            ) from error

    @property
    def frames_sha256(self) -> str | None:
        """The hash of the frames before they were encoded; None in records that are older than it."""
        value = self.values.get("result", {}).get("frames_sha256")
        return value if isinstance(value, str) else None

    @property
    def images(self) -> dict[str, str]:
        """The ids of the images it started from, by field."""
        named = {"image": self.request.image, "end_image": self.request.end_image}
        return {field: image for field, image in named.items() if image is not None}

    def wish(self) -> dict[str, Any]:
        """Return the fields of the API that ask for exactly this video, nothing left to defaults."""
        values = {name: value for name, value in self.request.to_json().items() if name not in _LEFT_OUT}
        del values["width"], values["height"], values["model"], values["image"], values["end_image"]
        return values | {
            "model_type": self.request.model,
            "resolution": self.request.resolution,
            "image_id": self.request.image,
            "end_image_id": self.request.end_image,
            "loras": [
                {
                    "id": use.id,
                    "strength": use.strength,
                    "strength_2": use.strength_2,
                    # Where one file alone went was decided then; of a pair, each has its own place.
                    "expert": use.files[0].expert if len(use.files) == 1 else None,
                }
                for use in self.request.loras
            ],
        }

    def factors(self, again: Record) -> list[Factor]:
        """Name everything that decides the frames, as it was here and as it is in the other record."""
        loras = self._loras(), again._loras()
        libraries = self.values.get("libraries", {}), again.values.get("libraries", {})
        return [
            *self._request_factors(again),
            Factor("weights", self._value("model", "weights_sha256"), again._value("model", "weights_sha256")),
            *_compare(*loras, prefix="LoRA "),
            *_compare(*libraries),
            Factor("device", self._value("device"), again._value("device")),
            *(Factor(name, self._value("result", name), again._value("result", name)) for name in _COMPUTATION),
            Factor("wan22", self._value("version"), again._value("version")),
        ]

    def _request_factors(self, again: Record) -> list[Factor]:
        """Name each value of the request that is another one; one line where all are the same."""
        left_out = {*AFTER_DENOISING, "loras"}  # LoRAs are compared by what they are
        mine, others = self.request.to_json(), again.request.to_json()
        changed = [name for name in mine if name not in left_out and mine[name] != others[name]]
        if not changed:
            return [Factor("request", "every value", "every value")]
        return [Factor(f"request: {name}", str(mine[name]), str(others[name])) for name in changed]

    def _loras(self) -> dict[str, str]:
        """Describe each LoRA by what it is, not by its name: files, places, strengths, and whether it was applied."""
        receipts = {receipt["id"]: receipt for receipt in self.values.get("result", {}).get("loras", [])}
        described = {}
        for use in self.request.loras:
            files = ", ".join(f"{file.sha256[:12]} on {file.expert}" for file in use.files)
            outcome = receipts.get(use.id, {}).get("outcome", "no receipt")
            described[use.id] = f"{files}, {use.strength:g}/{use.strength_2:g}, {outcome}"
        return described

    def _value(self, *path: str) -> str:
        value: Any = self.values
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return _ABSENT if value is None else str(value)


def _compare(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[Factor]:
    return [
        Factor(prefix + name, str(then.get(name, _ABSENT)), str(now.get(name, _ABSENT)))
        for name in dict.fromkeys([*then, *now])
    ]
