"""Errors of a CUDA device: the words by which each is recognised, whom it ends, and what helps.

After most of them the CUDA context of the process is beyond repair: every later call fails, too, so the worker
process ends and a new one continues the task. The others end the task, or the start of the worker.
"""

from __future__ import annotations

from typing import ClassVar

from backend.core.errors.actions import resubmit
from backend.core.errors.base import Action, Category, Severity
from backend.core.errors.generation import GenerationFailed


class DeviceFailed(GenerationFailed):
    """The device reported an error that no later call in the same process survives."""

    code = "device_failed"
    category = Category.SYSTEM_RESOURCE
    severity: ClassVar[Severity] = Severity.CRITICAL
    retryable: ClassVar[bool] = True
    ends_process: ClassVar[bool] = True
    suggestions: ClassVar[tuple[str, ...]] = (
        "Try again: a new worker process has started.",
        "If it happens again, look for `NVRM: Xid` in the system's log.",
    )
    usual_actions: ClassVar[tuple[Action, ...]] = (resubmit(),)
    #: Parts of the messages of CUDA, NCCL and torch, in lower case.
    signs: ClassVar[tuple[str, ...]] = (
        "unspecified launch failure",
        "illegal instruction was encountered",
        "the launch timed out and was terminated",
        "cuda error: unknown error",
        "cuda error: initialization error",
        "cublas_status_execution_failed",
        "cublas_status_internal_error",
        "cudnn_status_execution_failed",
        "cudnn_status_internal_error",
        "cuda error:",  # whatever CUDA adds later
    )


class IllegalAccess(DeviceFailed):
    """A calculation on the device reached outside its memory."""

    code = "device_illegal_access"
    suggestions = (
        "Try again: a new worker process has started.",
        "If it happens again, set WAN22_ATTENTION to `native`, and remove any overclocking of the card.",
    )
    signs = ("an illegal memory access was encountered", "misaligned address", "invalid program counter")


class DeviceAssertion(DeviceFailed):
    """A check inside a calculation on the device failed."""

    code = "device_assertion"
    retryable = False
    suggestions = ("Check the model's files with `wan22 models verify`, then report the log of this task.",)
    usual_actions = ()
    signs = ("device-side assert triggered",)


class DeviceMemoryFault(DeviceFailed):
    """The card's memory returned wrong data that it could not correct (ECC)."""

    code = "device_memory_fault"
    suggestions = (
        "Reset the card or restart the machine: `nvidia-smi -q -d ECC` shows the count of errors.",
        "Have the card replaced if it happens again.",
    )
    signs = ("uncorrectable ecc error", "uncorrectable nvlink error", "contained memory error", "hardware stack error")


class DeviceLost(DeviceFailed):
    """The card is no longer reachable."""

    code = "device_lost"
    retryable = False
    suggestions = (
        "Restart the machine; until then no task can run on this card.",
        "Check its power supply, temperature and seat: `NVRM: Xid 79` in the system's log is a lost card.",
    )
    usual_actions = ()
    signs = (
        "fallen off the bus",
        "gpu is lost",
        "no cuda-capable device is detected",
        "cuda-capable device(s) is/are busy or unavailable",
        "requires reset",
    )


class NcclFailed(DeviceFailed):
    """The cards could not exchange data (NCCL)."""

    code = "nccl_failed"
    suggestions = (
        "Try again; set NCCL_DEBUG to `INFO` to see the connection that failed in the log.",
        "Choose one card with WAN22_DEVICE if it happens again.",
    )
    signs = ("nccl error", "nccl communicator was aborted", "ncclunhandledcudaerror", "ncclsystemerror")


class KernelMissing(GenerationFailed):
    """The installed torch has no code for this card."""

    code = "device_no_kernel"
    category = Category.SYSTEM_RESOURCE
    retryable = False
    severity = Severity.CRITICAL
    suggestions = (
        "Install a torch build for this card: `wan22 doctor` names the card and what torch was built for.",
        "Until then set WAN22_DEVICE to cpu.",
    )
    signs: ClassVar[tuple[str, ...]] = (
        "no kernel image is available for execution on the device",
        "invalid device function",
        "is not compatible with the current pytorch installation",
    )


class DriverTooOld(GenerationFailed):
    """The NVIDIA driver is too old for the installed torch."""

    code = "device_driver_too_old"
    category = Category.SYSTEM_RESOURCE
    retryable = False
    severity = Severity.CRITICAL
    suggestions = ("Install a newer NVIDIA driver, or a torch build for an older CUDA version.",)
    signs: ClassVar[tuple[str, ...]] = (
        "driver on your system is too old",
        "driver version is insufficient for cuda runtime version",
        "the provided ptx was compiled with an unsupported toolchain",
        "system has unsupported display driver / cuda driver combination",
        "forward compatibility was attempted on non supported hw",
    )


#: Parts of messages that mean a full device, in lower case; torch has a class for most of them.
DEVICE_MEMORY_SIGNS = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
#: The same for the host's memory.
HOST_MEMORY_SIGNS = ("defaultcpuallocator", "not enough memory: you tried to allocate")
#: The errors of a device in the order in which a message is compared: the general one comes last.
DEVICE_KINDS: tuple[type[DeviceFailed | KernelMissing | DriverTooOld], ...] = (
    KernelMissing,
    DriverTooOld,
    DeviceMemoryFault,
    DeviceLost,
    NcclFailed,
    IllegalAccess,
    DeviceAssertion,
    DeviceFailed,
)
