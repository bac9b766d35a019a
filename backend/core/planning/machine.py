"""The part of a machine that decides about plans: what computes, and how much memory may be used of it.

Made from a hardware profile, a worker's record, or out of the air for an imagined machine. Plans nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.core.planning.cost_model import Rates, rates_of
from backend.core.planning.hardware import GIB, Gpu, HardwareProfile

#: Memory that no plan may use, so that the system and the screen keep working: at least the first, and this share.
VRAM_RESERVE, VRAM_RESERVE_SHARE = GIB, 0.04
RAM_RESERVE, RAM_RESERVE_SHARE = GIB, 0.10


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of a machine that decides: the device that computes and the memory that may be used, in bytes."""

    name: str
    cuda: bool
    vram: int | None  #: of the card; None = unknown, or there is no card
    ram: int | None  #: None = unknown
    compute_capability: tuple[int, int] | None = None
    cores: int = 1
    vram_limit: int | None = None  #: what the operator lets a plan take of the card; None = all but the reserve
    float32: bool = False  #: whether the card computes in float32, because its bfloat16 is wrong or slow

    @classmethod
    def of(cls, profile: HardwareProfile, device: str = "auto", precision: str | None = None) -> Machine:
        """Take what `device` (auto, cpu, cuda, cuda:N) means on this machine; None = in the usual precision."""
        if device == "cpu" or (device == "auto" and not profile.gpus):
            return cls(profile.processor, cuda=False, vram=None, ram=profile.memory, cores=profile.cores)
        _, _, number = device.partition(":")
        wanted = int(number) if number.isdigit() else 0
        unseen = Gpu(wanted, "a card that could not be asked", None, None, None)
        gpu = next((one for one in profile.gpus if one.index == wanted), unseen)
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
            KeyError, TypeError: it is no such record.
        """
        capability = values["compute_capability"]
        return cls(**(values | {"compute_capability": None if capability is None else tuple(capability)}))

    @property
    def rates(self) -> Rates:
        """How fast it is before anything was measured on it."""
        return rates_of(self.name if self.cuda else None, self.cores, float32=self.float32)

    @property
    def usable_vram(self) -> int | None:
        """What a plan may take of the card: its memory without the reserve, and not more than the operator's limit."""
        if not self.cuda:
            return None
        own = None if self.vram is None else self.vram - max(VRAM_RESERVE, int(VRAM_RESERVE_SHARE * self.vram))
        return min((one for one in (own, self.vram_limit) if one is not None), default=None)

    @property
    def limited(self) -> bool:
        """Whether the operator's limit is what a plan meets first."""
        return self.vram_limit is not None and self.usable_vram == self.vram_limit

    @property
    def usable_ram(self) -> int | None:
        """The host's memory without the reserve."""
        return None if self.ram is None else self.ram - max(RAM_RESERVE, int(RAM_RESERVE_SHARE * self.ram))
