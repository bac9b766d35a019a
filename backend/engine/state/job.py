"""Saves a denoising run after any step, and restores it into a freshly started job of the same request.

A restored run produces the same latents as an uninterrupted one, bit for bit, on the same device and libraries; a
state from anything else is refused with the reason. Prompt and image are encoded again, not stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from backend.core.errors.generation import StateMismatch
from backend.core.planning.memory_plan import Storage
from backend.engine.loading.pipeline_loader import WanComponents, library_versions
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.sampling.samplers import SchedulerState, restore_scheduler, scheduler_state
from backend.engine.state.tensor_file import read_tensors, write_tensors

#: Incremented whenever a change to the loop or this file would make older states give other latents.
STATE_FORMAT = 1
_KIND = "job_state"
#: Libraries that affect the latents.
_LIBRARIES = ("torch", "diffusers", "transformers", "ftfy")
_LATENTS = "latents"
_SCHEDULER = "scheduler."


def write_state(job: DenoiseJob, path: Path) -> None:
    """Write the state after the last completed step; durable when this returns.

    Raises:
        OSError: the file could not be written.
    """
    memory = scheduler_state(job.scheduler, job.index)
    tensors = {_LATENTS: job.latents} | {f"{_SCHEDULER}{name}": value for name, value in memory.tensors.items()}
    record = _origin(job) | {"step": job.index, "scheduler": memory.numbers, "seed": job.request.seed}
    write_tensors(path, tensors, record)


def restore_state(job: DenoiseJob, path: Path) -> None:
    """Restore a saved state into a job that was just started; the job is unchanged if the state does not fit.

    Raises:
        StateMismatch: the file is damaged, or was made by another version, request, model, set of LoRAs or kind
            of device; `details["differs"]` says which.
    """
    tensors, record = read_tensors(path)
    _check_origin(job, record)
    try:
        index = int(record["step"])
        latents = tensors[_LATENTS]
        memory = SchedulerState(
            index,
            {name.removeprefix(_SCHEDULER): value for name, value in tensors.items() if name.startswith(_SCHEDULER)},
            {name: int(value) for name, value in record["scheduler"].items()},
        )
        if not 0 <= index <= job.total_steps or any(t.shape != job.latents.shape for t in tensors.values()):
            raise _refusal("file", f"{path.name} is not a state of this run")
        restore_scheduler(job.scheduler, memory, job.latents.device)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refusal("file", f"{path.name} lacks a part of the state") from error
    job.latents = latents.to(job.latents.device)
    job.index = index


def _origin(job: DenoiseJob) -> dict[str, Any]:
    """Return what must match for a state to be resumed, as plain JSON values."""
    components = job.components
    versions = library_versions()
    return {
        "kind": _KIND,
        "format": STATE_FORMAT,
        "request": job.request.denoise_digest,
        "loras": _receipts(job),
        "libraries": {name: versions[name] for name in _LIBRARIES},
        "device": _device_kind(components.device),
        "precision": _precision(components),
        "encoding": job.encoded_as,
        "weights": components.digest.value_so_far,
        "fingerprint": components.fingerprint,
    }


def _receipts(job: DenoiseJob) -> list[Any]:
    """Return the LoRA receipts as they read after a round trip through JSON."""
    receipts = () if job.loras is None else job.loras.receipts
    values: list[Any] = json.loads(json.dumps([receipt.to_json() for receipt in receipts]))
    return values


def _check_origin(job: DenoiseJob, record: dict[str, Any]) -> None:
    ours = _origin(job)
    if record.get("kind") != _KIND or record.get("format") != STATE_FORMAT:
        raise _refusal("format", f"the state has format {record.get('format')}, this version reads {STATE_FORMAT}")
    for name, words in (
        ("request", "the state belongs to another request"),
        ("loras", "the state was made with other LoRAs"),
        ("libraries", f"the state was made with other libraries: {record.get('libraries')}"),
        ("device", f"the state was made on another kind of device: {record.get('device')}"),
        ("precision", f"the state was made in another precision: {record.get('precision')}"),
        ("encoding", f"text or image were encoded in another way: {record.get('encoding') or 'as usual'}"),
    ):
        if record.get(name) != ours[name]:
            raise _refusal(name, words)
    _check_weights(job, record)


def _check_weights(job: DenoiseJob, record: dict[str, Any]) -> None:
    """Compare digests if both are known; otherwise names, sizes and times of the files must match.

    The digest of a large model takes minutes, so neither the loop nor a restore waits for it needlessly: the digest,
    if the state has one, decides only if the files look different (copied, touched).
    """
    digest = record.get("weights")
    alike = record.get("fingerprint") == job.components.fingerprint
    now = job.components.digest.value_so_far
    if digest is not None and (now is not None or not alike):
        alike = digest == (now or job.components.digest.value)
    if not alike:
        raise _refusal("weights", "the state was made with other weights")


def _refusal(differs: str, words: str) -> StateMismatch:
    return StateMismatch(f"The saved state does not fit: {words}", details={"differs": differs})


def _precision(components: WanComponents) -> str:
    """Return the dtype and storage of the weights: their form changes bits, their location does not."""
    dtype, storage = str(components.transformer.dtype), components.plan.storage
    return dtype if storage is Storage.BF16 else f"{dtype} from {storage}"


def _device_kind(device: torch.device) -> str:
    """Return the name under which devices compute the same bits: the CPU, or the GPU's model name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
