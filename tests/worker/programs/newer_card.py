"""A worker on a machine whose card is newer than its torch: a real worker with simulated device facts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from backend.core.settings import load_settings
from backend.engine.device.facts import Card
from backend.worker.runner import WorkerRunner


class NewerCard:
    """A card that torch detects but has no code for."""

    build = "2.13.0+cu126"
    cuda = "12.6"

    def available(self) -> bool:
        return True

    def start(self) -> None:
        return None

    def cards(self) -> Sequence[Card]:
        return [Card(0, "NVIDIA RTX 5090", (12, 0))]

    def architectures(self) -> Sequence[str]:
        return ["sm_80", "sm_90"]

    def compute(self, device: str) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


if __name__ == "__main__":
    sys.exit(WorkerRunner(load_settings(), sys.argv[1], supervised=True, devices=NewerCard()).run())
