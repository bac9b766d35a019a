"""Turns errors into what a person at a terminal reads: plain sentences, and next steps that are commands.

Owns the words; prints nothing and decides no exit status but that of a wrong call.
"""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import typer
from pydantic import ValidationError
from rich.markup import escape
from typer.exceptions import TyperException

from backend.commands.console.terminal import err
from backend.core.errors.base import WanError
from backend.core.log_file import MAX_RECORD_BYTES, shortened
from backend.core.plain_words import about, in_plain_words
from backend.core.settings import load_settings

_MISUSED: Final = 2
_KEPT_PREFIX: Final = "wan22-error-"
_KEPT_ERRORS: Final = 10
#: Error code -> what to do about it in a terminal, where the server's advice is a call of its API.
_STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "lora_not_found": ("List the LoRAs with `wan22 loras list`.",),
    "lora_missing": ("List the LoRAs with `wan22 loras list`.",),
    "task_not_found": ("List the tasks with `wan22 queue`.",),
    "output_not_found": ("List the videos with `wan22 list`.",),
    "not_found": ("Check the address of the server: it may be another program or an older version.",),
    "download_not_found": ("Start it with `wan22 models download`.",),
    "input_not_found": ("Give the image file again with --image.",),
    "image_required": ("Add a start image with --image, or choose a T2V model with --model.",),
    "invalid_request": ("Correct the option and run the command again; nothing was queued.",),
    "lora_not_applied": ("Leave the LoRA out, or use --on-lora-failure skip.",),
    "latents_not_kept": ("Generate it again with --keep-latents; the same seed gives the same clip.",),
    "unauthorized": ("Set WAN22_API_KEY to the key of this server.",),
    "idempotency_conflict": ("Run the command again.",),
    "internal_error": ("Look at the server's log; `wan22 doctor` checks this machine.",),
}
#: A step that names one of these is advice for a program, not for a person at a terminal.
_API_SPEECH: Final = ("/api/", "GET ", "POST ", "PUT ", "DELETE ", "multipart/", "Authorization:", "request id")
_REASONS: Final[Mapping[int, str]] = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "part of the path is not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many files are open",
    errno.ENOMEM: "out of memory",
}
#: API field -> the option of the command line.
_OPTIONS: Final[Mapping[str, str]] = {
    "resolution": "--size",
    "num_frames": "--frames",
    "seconds": "--seconds",
    "guidance_scale_2": "--guidance-2",
    "guidance_scale": "--guidance",
    "negative_prompt": "--negative",
    "model_type": "--model",
    "scheduler": "--scheduler",
    "force": "--force",
    "keep_latents": "--keep-latents",
}


def steps_in_terminal(error: WanError) -> tuple[str, ...]:
    """Return the next steps of an error as commands and options; calls of the API are replaced."""
    steps = [step for step in error.next_steps if not any(speech in step for speech in _API_SPEECH)]
    general = error.next_steps == type(error).suggestions or len(steps) < len(error.next_steps)
    if general and error.code in _STEPS:
        steps = [*_STEPS[error.code], *(steps if len(steps) < len(error.next_steps) else ())]
    for field, option in _OPTIONS.items():
        steps = [step.replace(f"`{field}`", option) for step in steps]
    return tuple(steps)


def misused(error: TyperException) -> int:
    """Say what is wrong with the call of a command, and where its help is; return the exit status."""
    context: typer.Context | None = getattr(error, "ctx", None)
    cause, param = error.__cause__, getattr(error, "param", None)
    message = error.format_message()
    if isinstance(error, typer.BadParameter) and param is not None and error.param_hint is None:
        # A value that could not be read: typer repeats the sentence of its library.
        words = in_plain_words(cause.errors()[0]) if isinstance(cause, ValidationError) else error.message
        named = " or ".join(param.opts) if param.param_type_name == "option" else param.name
        message = about(str(named), words) if error.message else message
    if not message.strip():  # called without a command: its help is printed already
        return _MISUSED
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    if context is not None:
        err.print(f"  → `{escape(context.command_path)} --help` lists what it takes.", highlight=False, soft_wrap=True)
    return _MISUSED


def unforeseen(error: Exception) -> WanError:
    """Turn an exception that no command foresaw into a sentence; the traceback goes to a file."""
    if isinstance(error, OSError) and error.errno is not None and error.errno in _REASONS:
        where = f"{error.filename}: " if error.filename else ""
        return WanError(f"{where}{_REASONS[error.errno]}", suggestions=("Correct this, then run the command again.",))
    if isinstance(error, MemoryError):
        return WanError("Out of memory", suggestions=("Close other programs, or choose a smaller size.",))
    kept = _keep(error)
    steps = (f"The details are in {kept}; please report them.",) if kept else ()
    return WanError(f"Something unexpected happened in wan22 ({type(error).__name__})", suggestions=steps)


def _keep(error: Exception) -> Path | None:
    """Write the traceback to the home's logs, or where those cannot be written to the temporary folder."""
    text = "".join(traceback.format_exception(error)).encode(errors="replace")
    try:
        folder = load_settings().paths.logs
    except WanError:
        folder = Path(tempfile.gettempdir())
    for place in (folder, Path(tempfile.gettempdir())):
        try:
            file, name = tempfile.mkstemp(prefix=_KEPT_PREFIX, suffix=".log", dir=place)
            with os.fdopen(file, "wb") as log:
                log.write(shortened(text, MAX_RECORD_BYTES))
        except OSError:
            continue
        _forget_old(place)
        return Path(name)
    return None


def _forget_old(folder: Path) -> None:
    """Delete all but the newest files of errors."""
    with suppress(OSError):
        files = sorted(folder.glob(f"{_KEPT_PREFIX}*.log"), key=lambda file: file.lstat().st_mtime_ns, reverse=True)
        for file in files[_KEPT_ERRORS:]:
            file.unlink()
