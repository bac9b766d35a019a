"""`wan22 replay`: make a video again from the record inside it, and compare the two clips, frame by frame.

Reads records of older versions too, and names every factor that has changed since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.commands.clips import Extras, fetch_clips
from backend.commands.console.terminal import (
    JsonOption,
    OutputOption,
    ServerOption,
    any_server,
    check_file,
    check_target,
    err,
    out,
    print_json,
)
from backend.core.errors.base import Category, Severity, WanError
from backend.core.errors.lookups import InputMissing, OutputFileMissing
from backend.core.errors.surroundings import BadSettings
from backend.core.planning.abilities import NATIVE
from backend.core.record import METADATA_FORMAT, PRODUCT, RunRecord, RunResult, body_of
from backend.core.requests.forms import AFTER_DENOISING, GenerationRequest

if TYPE_CHECKING:
    from backend.commands.client import ApiClient

_VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".gif"})
_NAME_A_VIDEO = ("Give the id of a video, which `wan22 list` shows, or a file that wan22 made.",)
_ABSENT = "-"
_SHOWN_CHARS = 40  # of a value in the table
_PEAK = 255.0  # of 8-bit samples


class NoRecord(WanError):
    """This file has no record of how it was made."""

    code = "no_record"
    category = Category.INPUT_VALIDATION
    severity = Severity.WARNING
    suggestions = (
        "Choose a video made by wan22. Converting a file, or sending it through a chat, removes the record.",
    )


class NotComparable(WanError):
    """The two videos cannot be compared frame by frame."""

    code = "not_comparable"
    category = Category.INPUT_VALIDATION
    severity = Severity.WARNING
    suggestions = ("Look at the table of what has changed.",)


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor that determines the frames, then and now."""

    name: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """Whether it has not changed."""
        return self.then == self.now


@dataclass(frozen=True, slots=True)
class Record:
    """The record inside a video."""

    request: GenerationRequest
    run: RunRecord  #: the whole record

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read the record of a video file.

        Raises:
            NoRecord: the file is missing, not a video, not made by wan22, or made by a newer version.
        """
        from backend.services.media.video_encoder import read_metadata

        if not path.is_file():
            raise NoRecord(f"There is no file {path}", suggestions=("Correct the path.",))
        values = read_metadata(path)
        if values is None or values.get("product") != PRODUCT:
            raise NoRecord(f"{path} has no record of how it was made")
        run = RunRecord.from_json(values)
        if run.format > METADATA_FORMAT:
            raise NoRecord(f"{path} was made by a newer version", suggestions=("Update wan22.",))
        if run.result is not None and run.result.mock is not None:
            raise NoRecord(
                f"{path} is a mock, which no model made: {run.result.mock}",
                suggestions=("Generate the clip for real.",),
            )
        request = run.requested
        if request is None:
            raise NoRecord(
                f"The record in {path} cannot be read by this version ({run.version or 'unknown'} made it)",
                suggestions=("Use the version that made it.",),
            )
        return cls(request, run)

    @property
    def frames_sha256(self) -> str | None:
        """The hash of the frames before encoding; None in older records."""
        return self._result.frames_sha256

    @property
    def images(self) -> dict[str, str]:
        """The ids of its start and end images, by field."""
        named = {"image": self.request.image, "end_image": self.request.end_image}
        return {field: image for field, image in named.items() if image is not None}

    def factors(self, again: Record) -> list[Factor]:
        """List every factor that determines the frames, in this record and in the other."""
        mine, other = self.run, again.run
        return [
            *self._request_factors(again),
            _factor("weights", mine.weights_sha256, other.weights_sha256),
            *_compare_values(self._loras(), again._loras(), prefix="LoRA "),
            *_compare_values(mine.libraries, other.libraries),
            _factor("device", mine.device, other.device),
            _factor("attention", self._result.attention, again._result.attention),
            _factor("convolution", self._result.convolution or NATIVE, again._result.convolution or NATIVE),
            _factor("precision", self._result.precision, again._result.precision),
            _factor("wan22", mine.version, other.version),
        ]

    @property
    def _result(self) -> RunResult:
        return self.run.result or RunResult()

    def _request_factors(self, again: Record) -> list[Factor]:
        """List each value of the request that differs; one line if none does."""
        left_out = {*AFTER_DENOISING, "loras"}  # LoRAs are compared by what they are
        mine, others = self.request.to_json(), again.request.to_json()
        changed = [name for name in mine if name not in left_out and mine[name] != others[name]]
        if not changed:
            return [Factor("request", "every value", "every value")]
        return [Factor(f"request: {name}", str(mine[name]), str(others[name])) for name in changed]

    def _loras(self) -> dict[str, str]:
        """Describe each LoRA by content, not name: files, experts, strengths, and whether it was applied."""
        receipts = {receipt.get("id"): receipt for receipt in self._result.loras if isinstance(receipt.get("id"), str)}
        described = {}
        for use in self.request.loras:
            files = ", ".join(f"{file.sha256[:12]} on {file.expert}" for file in use.files)
            outcome = receipts.get(use.id, {}).get("outcome", "no receipt")
            described[use.id] = f"{files}, {use.strength:g}/{use.strength_2:g}, {outcome}"
        return described


def _factor(name: str, then: str | None, now: str | None) -> Factor:
    return Factor(name, _ABSENT if then is None else then, _ABSENT if now is None else now)


def _compare_values(then: dict[str, str], now: dict[str, str], prefix: str = "") -> list[Factor]:
    return [_factor(prefix + name, then.get(name), now.get(name)) for name in dict.fromkeys([*then, *now])]


def named_video(text: str) -> str:
    """Return the id of the video that a user means by an id or by a file that wan22 made.

    Raises:
        BadSettings: it is another file, or a path without a file.
    """
    path = Path(text)
    if not path.is_file():
        if path.name == text and path.suffix.lower() not in _VIDEO_SUFFIXES:
            return text
        raise BadSettings(f"There is no file {text}", suggestions=_NAME_A_VIDEO)
    try:
        task_id = Record.read(path).run.task_id
    except NoRecord as error:
        raise BadSettings(f"{error.message}, so it names no video of the server", suggestions=_NAME_A_VIDEO) from None
    if task_id is None:
        raise BadSettings(f"The record in {path} has no id of a video", suggestions=_NAME_A_VIDEO)
    return task_id


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video made by wan22.")],
    check: Annotated[bool, typer.Option("--check", help="Compare the frames; exit status 1 if they differ.")] = False,
    output: OutputOption = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="The start image, if the server no longer has it.")
    ] = None,
    end_image: Annotated[Path | None, typer.Option("--end-image", help="The same for the end image.")] = None,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Make a video again, exactly as the record inside the file says."""
    record = Record.read(file)
    target = output or Path(f"{file.stem}-replay.mp4")
    check_target(target)
    if target.resolve() == file.resolve():
        raise BadSettings(f"{target} is the video to be made again", suggestions=("Choose another -o.",))
    check_file(image, "--image")
    check_file(end_image, "--end-image")
    with any_server(server) as client:
        fields = body_of(record.request) | _images(client, record, {"image": image, "end_image": end_image})
        (saved,) = fetch_clips(
            client, client.submit(fields), target, Extras(as_json=as_json and not check, quiet=as_json)
        )
    if check and not _compare(file, record, saved, as_json=as_json):
        raise typer.Exit(1)


def _images(client: ApiClient, record: Record, given: dict[str, Path | None]) -> dict[str, Any]:
    """Return the ids of the images on this server, uploading those given here.

    Raises:
        InputMissing: an image is neither on the server nor given.
    """
    found = {}
    for field, recorded in record.images.items():
        option, path = f"--{field.replace('_', '-')}", given[field]
        if path is not None:
            found[f"{field}_id"] = client.keep_image(path)
            if found[f"{field}_id"] != recorded:
                err.print(f"warning: {option} is not the picture that the video was made from", style="yellow")
        elif not client.has_image(recorded):
            raise InputMissing(
                f"The {field.replace('_', ' ')} of this video is no longer on the server",
                suggestions=(
                    f"Give the file with {option}; the record has the hash of its pixels ({recorded[:12]}…).",
                ),
            )
    return found


@dataclass(frozen=True, slots=True)
class ClipDistance:
    """The distance of two clips; PSNR = 10 log10(255² / mean squared error) in dB, infinite for equal pixels."""

    frames: int
    psnr: float  #: dB, over all samples of all frames
    worst_psnr: float  #: dB, of the frame that is furthest off
    worst_frame: int  #: its number, from 0

    @property
    def equal(self) -> bool:
        """Whether every pixel is the same."""
        return math.isinf(self.psnr)


def measure_distance(one: Path, other: Path) -> ClipDistance:
    """Compare two video files frame by frame, as RGB.

    Raises:
        NotComparable: a file cannot be decoded, or they differ in size or length.
    """
    import numpy as np  # loaded only when two files are compared, like FFmpeg

    from backend.services.media.video_encoder import read_frames

    errors: list[float] = []
    try:
        for first, second in zip_longest(read_frames(one), read_frames(other)):
            if first is None or second is None:
                raise NotComparable("The two videos have different numbers of frames")
            if first.shape != second.shape:
                raise NotComparable("The two videos have different sizes")
            errors.append(float(np.square(first.astype(np.int32) - second).mean()))
    except OutputFileMissing as error:
        raise NotComparable(error.message) from error
    if not errors:
        raise NotComparable("There are no frames to compare")
    worst = max(range(len(errors)), key=errors.__getitem__)
    return ClipDistance(len(errors), _psnr(sum(errors) / len(errors)), _psnr(errors[worst]), worst)


def _psnr(error: float) -> float:
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / error)


def _compare(file: Path, record: Record, saved: Path, *, as_json: bool = False) -> bool:
    """Print the comparison and return whether the frames are identical."""
    again = Record.read(saved)
    if record.frames_sha256 is not None and again.frames_sha256 is not None:
        identical, basis = record.frames_sha256 == again.frames_sha256, "the frames before encoding"
    else:
        identical, basis = measure_distance(file, saved).equal, "the decoded frames; the record has no hash"
    factors = record.factors(again)
    if as_json:
        changed = [factor.name for factor in factors if not factor.same]
        print_json({"file": str(saved), "identical": identical, "compared": basis, "changed": changed})
        return identical
    out.print(_table(factors))
    if identical:
        out.print(f"[bold green]identical[/] ({basis})")
        return True
    out.print(f"[bold red]different[/] ({basis})")
    distance = measure_distance(file, saved)
    if distance.equal:
        out.print("The decoded frames are identical: encoding removed the difference.")
    else:
        out.print(
            f"PSNR {distance.psnr:.2f} dB over {distance.frames} decoded frames, "
            f"worst {distance.worst_psnr:.2f} dB (frame {distance.worst_frame})"
        )
    changed = [factor.name for factor in factors if not factor.same]
    out.print(escape("changed since: " + ", ".join(changed) if changed else "No recorded factor has changed."))
    return False


def _table(factors: list[Factor]) -> Table:
    table = Table("factor", "in the file", "now", "", box=None)
    for factor in factors:
        mark = "[green]same[/]" if factor.same else "[bold red]differs[/]"
        table.add_row(escape(factor.name), _shown(factor.then), _shown(factor.now), mark)
    return table


def _shown(value: str) -> str:
    return escape(value if len(value) <= _SHOWN_CHARS else value[: _SHOWN_CHARS - 1] + "…")
