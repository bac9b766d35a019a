"""Results of testing a device: verdicts on attention kernels and precision, and which of them are used.

Shared by the testing process, the worker and `wan22 doctor`. Tests nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class AttentionSetting(StrEnum):
    """The operator's choice of attention: a selection rule, or a kernel by name."""

    AUTO = "auto"  #: the fastest kernel that computes exactly
    SPEED = "speed"  #: the fastest kernel, including those that round their inputs to eight bits
    NATIVE = "native"  #: torch's own, without testing others
    CUDNN = "cudnn"
    FLASH = "flash"
    FLASH3 = "flash3"
    EFFICIENT = "efficient"
    XFORMERS = "xformers"
    MATH = "math"
    SAGE = "sage"


class ConvolutionSetting(StrEnum):
    """The operator's choice of the VAE's convolutions on a processor; a card has one kind."""

    AUTO = "auto"  #: oneDNN, if it computes correctly and is no slower
    NATIVE = "native"  #: what torch chooses for each shape, to the bit as stock diffusers computes
    ONEDNN = "onednn"


NATIVE: Final = AttentionSetting.NATIVE.value
#: A kernel replaces torch's own if it takes less than this share of its time; smaller gains are noise.
WORTH: Final = 0.95


class Verdict(StrEnum):
    """Result of testing a kernel."""

    OK = "ok"
    SLOWER = "slower"  #: correct, but not faster than torch's own
    WRONG = "wrong"  #: too far from the float32 result
    NOT_FINITE = "not finite"  #: some values are NaN or infinite
    FAILED = "failed"  #: it raised, or its process died or timed out
    NOT_INSTALLED = "not installed"
    NOT_ALLOWED = "not allowed"  #: rounds its inputs, which was not requested


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """One kernel on one device."""

    kernel: str
    verdict: Verdict
    reason: str
    seconds: float | None = None  #: for one call; None = not measured
    error: float | None = None  #: relative to float32; None = not measured

    @property
    def right(self) -> bool:
        """Whether its results are correct."""
        return self.verdict in (Verdict.OK, Verdict.SLOWER)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> KernelVerdict:
        """Build what `asdict` wrote."""
        return cls(**(values | {"verdict": Verdict(values["verdict"])}))


@dataclass(frozen=True, slots=True)
class PrecisionVerdict:
    """The number format in which the experts compute."""

    precision: str  #: a torch dtype name, such as bfloat16
    reason: str


@dataclass(frozen=True, slots=True)
class Abilities:
    """Everything that is known about a device."""

    precision: PrecisionVerdict
    kernels: tuple[KernelVerdict, ...]  #: torch's own first
    attention: str  #: the kernel in use
    warnings: tuple[str, ...] = ()  #: requested but not possible

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Abilities:
        """Build what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the record is malformed.
        """
        return cls(
            precision=PrecisionVerdict(**values["precision"]),
            kernels=tuple(KernelVerdict.from_json(one) for one in values["kernels"]),
            attention=values["attention"],
            warnings=tuple(values["warnings"]),
        )


def choose_kernel(wish: AttentionSetting, verdicts: Iterable[KernelVerdict]) -> tuple[str, tuple[str, ...]]:
    """Return the kernel to use, and a warning if it is not the requested one.

    A kernel requested by name is used if it is correct, however slow; a selection rule takes the fastest correct one.
    """
    found = {verdict.kernel: verdict for verdict in verdicts}
    if wish in (AttentionSetting.AUTO, AttentionSetting.SPEED):
        fast = [one for one in found.values() if one.verdict is Verdict.OK and one.seconds is not None]
        return min(fast, key=lambda one: one.seconds or 0.0).kernel if fast else NATIVE, ()
    named = found.get(wish)
    if wish == AttentionSetting.NATIVE or (named is not None and named.right):
        return wish.value, ()
    why = f"{named.verdict} ({named.reason})" if named is not None else "it was not tested"
    return NATIVE, (f"WAN22_ATTENTION asks for {wish}, which is not used: {why}. Choose auto or another kernel.",)
