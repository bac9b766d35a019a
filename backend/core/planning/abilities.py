"""What a device was found able to do: verdicts on kernels of attention and on the precision, and which were taken.

The words that the trying process, the worker and `wan22 doctor` share. Tries nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class AttentionSetting(StrEnum):
    """What the operator wants of the attention: a way to choose, or a kernel by its name."""

    AUTO = "auto"  #: the fastest kernel that computes exactly
    SPEED = "speed"  #: the fastest one, also one that rounds its inputs to eight bits
    NATIVE = "native"  #: torch's own, without trying others
    CUDNN = "cudnn"
    FLASH = "flash"
    FLASH3 = "flash3"
    EFFICIENT = "efficient"
    XFORMERS = "xformers"
    MATH = "math"
    SAGE = "sage"


NATIVE: Final = AttentionSetting.NATIVE.value
#: A kernel is worth leaving torch's own for when it takes less than this part of its time; below is noise.
WORTH: Final = 0.95


class Verdict(StrEnum):
    """What came of trying a kernel."""

    OK = "ok"
    SLOWER = "slower"  #: right, and not faster than torch's own
    WRONG = "wrong"  #: too far from the same sums in float32
    NOT_FINITE = "not finite"  #: some of its values are no numbers
    FAILED = "failed"  #: it raised, or its process died or did not end
    NOT_INSTALLED = "not installed"
    NOT_ALLOWED = "not allowed"  #: rounds its inputs, and nobody asked for that


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """One kernel on one device."""

    kernel: str
    verdict: Verdict
    reason: str
    seconds: float | None = None  #: of one call; None = not measured
    error: float | None = None  #: relative to float32; None = not measured

    @property
    def right(self) -> bool:
        """Whether it may be used."""
        return self.verdict in (Verdict.OK, Verdict.SLOWER)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> KernelVerdict:
        """Build what `asdict` wrote."""
        return cls(**(values | {"verdict": Verdict(values["verdict"])}))


@dataclass(frozen=True, slots=True)
class PrecisionVerdict:
    """The form of numbers in which the experts shall compute."""

    precision: str  #: a name of torch's, such as bfloat16
    reason: str


@dataclass(frozen=True, slots=True)
class Abilities:
    """All that was found out about a device."""

    precision: PrecisionVerdict
    kernels: tuple[KernelVerdict, ...]  #: torch's own first
    attention: str  #: the kernel that was taken
    warnings: tuple[str, ...] = ()  #: what was asked for and cannot be given

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Abilities:
        """Build what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is no such record.
        """
        return cls(
            precision=PrecisionVerdict(**values["precision"]),
            kernels=tuple(KernelVerdict.from_json(one) for one in values["kernels"]),
            attention=values["attention"],
            warnings=tuple(values["warnings"]),
        )


def choose_kernel(wish: AttentionSetting, verdicts: Iterable[KernelVerdict]) -> tuple[str, tuple[str, ...]]:
    """Return the kernel to use and, where it is not the one that was asked for, a sentence about that.

    A kernel that is named is taken when it is right, however slow; a way to choose takes the fastest right one.
    """
    found = {verdict.kernel: verdict for verdict in verdicts}
    if wish in (AttentionSetting.AUTO, AttentionSetting.SPEED):
        fast = [one for one in found.values() if one.verdict is Verdict.OK and one.seconds is not None]
        return min(fast, key=lambda one: one.seconds or 0.0).kernel if fast else NATIVE, ()
    named = found.get(wish)
    if wish == AttentionSetting.NATIVE or (named is not None and named.right):
        return wish.value, ()
    why = f"{named.verdict} ({named.reason})" if named is not None else "it was not tried"
    return NATIVE, (f"WAN22_ATTENTION asks for {wish}, which is not used: {why}. Choose auto or another kernel.",)
