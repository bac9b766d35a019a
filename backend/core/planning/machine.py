"""The machine as the planner sees it: the device that computes, and the memory that may be used.

Built from a hardware profile, a worker's record, or freely for an imagined machine. Plans nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.core.planning.cost_model import Rates, rates_of
from backend.core.planning.hardware import GIB, Gpu, HardwareProfile

#: Memory kept free for the system and the display: at least this many bytes, and at least this share.
VRAM_RESERVE, VRAM_RESERVE_SHARE = GIB, 0.04
RAM_RESERVE, RAM_RESERVE_SHARE = GIB, 0.10


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that computes and the memory that plans may use, in bytes."""

    name: str
    cuda: bool
    vram: int | None  #: of the card; None = unknown, or there is no card
    ram: int | None  #: None = unknown
    compute_capability: tuple[int, int] | None = None
    cores: int = 1
    vram_limit: int | None = None  #: the operator's limit; None = the card less its reserve
    float32: bool = False  #: whether the card computes in float32, because its bfloat16 is wrong or slow

    @classmethod
    def of(cls, profile: HardwareProfile, device: str = "auto", precision: str | None = None) -> Machine:
        """Resolve `device` (auto, cpu, cuda, cuda:N) on this machine; `precision` None = the default one."""
        if device == "cpu" or (device == "auto" and not profile.gpus):
            return cls(profile.processor, cuda=False, vram=None, ram=profile.memory, cores=profile.cores)
        _, _, number = device.partition(":")
        wanted = int(number) if number.isdigit() else 0
        unknown = Gpu(wanted, "an unknown card", None, None, None)
        gpu = next((one for one in profile.gpus if one.index == wanted), unknown)
        return cls(
            gpu.name,
            True,
            gpu.memory_total,
            profile.memory,
            gpu.compute_capability,
            profile.cores,
            float32=precision == "float32",
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Machine:
        """Build the machine that `asdict` and JSON wrote.

        Raises:
            KeyError, TypeError: the record is malformed.
        """
        capability = values["compute_capability"]
        return cls(**(values | {"compute_capability": None if capability is None else tuple(capability)}))

    @property
    def in_float32(self) -> bool:
        """Whether text encoder and experts compute in float32, as on every processor."""
        return self.float32 or not self.cuda

    @property
    def rates(self) -> Rates:
        """Its published rates, used until something was measured on it."""
        return rates_of(self.name if self.cuda else None, self.cores, float32=self.float32)

    @property
    def usable_vram(self) -> int | None:
        """VRAM for plans: the card less its reserve, at most the operator's limit; None = unknown, or no card."""
        if not self.cuda:
            return None
        own = None if self.vram is None else self.vram - max(VRAM_RESERVE, int(VRAM_RESERVE_SHARE * self.vram))
        return min((one for one in (own, self.vram_limit) if one is not None), default=None)

    @property
    def limited(self) -> bool:
        """Whether the operator's limit is tighter than the card's reserve."""
        return self.vram_limit is not None and self.usable_vram == self.vram_limit

    @property
    def usable_ram(self) -> int | None:
        """The host's memory less the reserve; None = unknown."""
        return None if self.ram is None else self.ram - max(RAM_RESERVE, int(RAM_RESERVE_SHARE * self.ram))
