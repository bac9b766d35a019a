"""What ends an attempt becomes an error of the tree, with next steps, and the log has everything."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import structlog
import torch
from safetensors import safe_open

from backend.core.catalogue.table import MODELS
from backend.core.domain import Priority, Task, TaskStatus, new_task_id, utcnow
from backend.core.errors.base import Category, WanError
from backend.core.errors.generation import NonFiniteLatents, OutOfMemory
from backend.core.errors.models import ModelDamaged
from backend.core.errors.tree import all_kinds, kind_of, public_kinds
from backend.core.requests.rules import native_request
from backend.services.error_handler import GenerationErrorHandler, classify

ASYNCHRONOUS = """
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
#: What users of torch report -> code, and whether the process ends.
REPORTED = [
    ("CUDA error: an illegal memory access was encountered" + ASYNCHRONOUS, "device_illegal_access", True),
    ("CUDA error: misaligned address" + ASYNCHRONOUS, "device_illegal_access", True),
    ("CUDA error: device-side assert triggered" + ASYNCHRONOUS, "device_assertion", True),
    ("CUDA error: uncorrectable ECC error encountered" + ASYNCHRONOUS, "device_memory_fault", True),
    ("CUDA error: unspecified launch failure" + ASYNCHRONOUS, "device_failed", True),
    ("CUDA error: unknown error" + ASYNCHRONOUS, "device_failed", True),
    ("CUDA error: an error that CUDA 15 adds" + ASYNCHRONOUS, "device_failed", True),
    ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, ...)`", "device_failed", True),
    ("CUDA error: CUDA-capable device(s) is/are busy or unavailable" + ASYNCHRONOUS, "device_lost", True),
    ("Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system", "device_lost", True),
    ("NCCL Error 2: unhandled system error (run with NCCL_DEBUG=INFO for details)", "nccl_failed", True),
    (
        "NCCL error in: ProcessGroupNCCL.cpp:1333, internal error\nncclInternalError: Internal check failed.",
        "nccl_failed",
        True,
    ),
    ("CUDA error: no kernel image is available for execution on the device" + ASYNCHRONOUS, "device_no_kernel", False),
    (
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "device_driver_too_old",
        False,
    ),
    (
        "Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported "
        "HW",
        "device_driver_too_old",
        False,
    ),
    ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB", "out_of_memory", False),
    ("CUDA error: out of memory" + ASYNCHRONOUS, "out_of_memory", False),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out_of_memory", False),
    ("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", "out_of_memory", False),
]


def task_of(frames: int = 9, model: str = "tiny-t2v-a14b") -> Task:
    request = replace(native_request(MODELS[model]), num_frames=frames, prompt="a red circle")
    return Task(
        id=new_task_id(),
        status=TaskStatus.PROCESSING,
        model=model,
        request=request.to_json(),
        adjustments=(),
        priority=Priority.NORMAL.rank,
        attempt=2,
        max_attempts=3,
        created_at=utcnow(),
    )


@pytest.mark.parametrize(("text", "code", "ends"), REPORTED, ids=[text[:50] for text, _, _ in REPORTED])
def test_a_text_of_a_device_says_which_error_it_is_and_whom_it_ends(text: str, code: str, ends: bool) -> None:
    failure = classify(RuntimeError(text))
    assert (failure.code, failure.ends_process) == (code, ends)
    assert failure.next_steps
    assert "CUDA kernel errors" not in failure.message


def test_the_classes_of_torch_are_recognised_like_their_texts() -> None:
    assert classify(torch.OutOfMemoryError("Allocation failed")).code == "out_of_memory"
    assert classify(torch.AcceleratorError(REPORTED[0][0])).code == "device_illegal_access"


def test_what_is_no_error_of_a_device_is_not_taken_for_one() -> None:
    assert classify(ValueError("CUDA error: an illegal memory access was encountered")).code == "unexpected_failure"
    assert classify(RuntimeError("mat1 and mat2 shapes cannot be multiplied")).code == "unexpected_failure"


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (MemoryError(), "out_of_memory", Category.VRAM_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", Category.VRAM_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full", Category.SYSTEM_RESOURCE),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "storage_full", Category.SYSTEM_RESOURCE),
        (OSError(errno.EIO, "Input/output error"), "file_unusable", Category.SYSTEM_RESOURCE),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "file_unusable", Category.SYSTEM_RESOURCE),
        (httpx2.ConnectError("refused"), "hub_unreachable", Category.NETWORK),
        (socket.gaierror(-2, "Name or service not known"), "hub_unreachable", Category.NETWORK),
        (KeyError("x"), "unexpected_failure", Category.UNKNOWN),
        (NonFiniteLatents(), "non_finite_latents", Category.GENERATION_PIPELINE),
    ],
    ids=repr,
)
def test_other_errors_have_their_category(error: Exception, code: str, category: Category) -> None:
    failure = classify(error)
    assert (failure.code, failure.category) == (code, category)


def test_a_file_that_safetensors_cannot_read_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(Exception, match="header") as caught, safe_open(path, "numpy"):
        pytest.fail("a damaged file was opened")
    assert isinstance(classify(caught.value), ModelDamaged)


def test_a_fatal_error_counts_wherever_it_is_in_the_chain() -> None:
    error = ModelDamaged("A block cannot be read")
    error.__cause__ = RuntimeError(REPORTED[0][0])
    assert classify(error).code == "device_illegal_access"
    later = KeyError("x")
    later.__context__ = error
    assert classify(later).ends_process


def test_an_error_of_the_tree_stays_as_it_is() -> None:
    error = NonFiniteLatents("Step 3", suggestions=("Look.",))
    assert classify(error) is error


def test_out_of_memory_names_a_request_with_fewer_frames() -> None:
    handler = GenerationErrorHandler("host:1:1:test")
    assert handler.explain(OutOfMemory(), task_of(9)).actions == ({"action": "resubmit", "changes": {"num_frames": 5}},)
    assert handler.explain(MemoryError(), task_of(1)).actions == ()


def test_the_log_has_task_attempt_worker_and_the_whole_traceback() -> None:
    task = task_of()
    error = RuntimeError(REPORTED[3][0])
    with structlog.testing.capture_logs() as records:
        GenerationErrorHandler("host:7:1:me").explain(error, task)
    (record,) = [record for record in records if record["event"] == "error.explained"]
    assert (record["task_id"], record["attempt"], record["worker_id"]) == (task.id, 2, "host:7:1:me")
    assert (record["error"], record["ends_process"]) == ("device_memory_fault", True)
    assert record["log_level"] == "critical"
    assert record["exc_info"] is error


def test_a_stored_code_leads_back_to_its_class() -> None:
    for kind in public_kinds():
        assert kind_of(kind.code) is kind
    assert kind_of("a code of the next version") is WanError


def test_every_class_says_what_clients_read() -> None:
    for kind in all_kinds():
        assert isinstance(kind.category, Category), kind
        assert all(set(action) > {"action"} for action in kind.usual_actions), kind
