"""The device is chosen by trial: every known incompatibility of card, driver and build, simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from backend.core.errors.surroundings import DeviceUnusable
from backend.core.planning.hardware import GIB, Gpu, HardwareProfile
from backend.engine.device.choice import DeviceVerdict, choose_device
from backend.engine.device.facts import Card, TorchDevices, runs_on

NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"
HOPPER = Card(0, "NVIDIA H100", (9, 0))
BLACKWELL = Card(0, "NVIDIA RTX 5090", (12, 0))
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@dataclass
class Facts:
    """What torch reports; an exception given as an answer is raised."""

    build: str = "2.13.0+cu126"
    cuda: str | None = "12.6"
    is_available: bool | Exception = True
    start_fails: Exception | None = None
    seen: Sequence[Card] | Exception = (HOPPER,)
    sets: Sequence[str] = CU126
    broken: dict[str, Exception] = field(default_factory=dict)  #: by device
    tried: list[str] = field(default_factory=list)

    def available(self) -> bool:
        if isinstance(self.is_available, Exception):
            raise self.is_available
        return self.is_available

    def start(self) -> None:
        if self.start_fails is not None:
            raise self.start_fails

    def cards(self) -> Sequence[Card]:
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    def architectures(self) -> Sequence[str]:
        return self.sets

    def compute(self, device: str) -> None:
        self.tried.append(device)
        if device in self.broken:
            raise self.broken[device]


BARE = HardwareProfile("x86_64", 4, 8 * GIB, None, 4 * GIB, (), None, "3.12")


def with_card(
    name: str = "NVIDIA H100", capability: tuple[int, int] = (9, 0), driver: str = "580.65"
) -> HardwareProfile:
    return replace(BARE, gpus=(Gpu(0, name, 80 * GIB, 0, 0.0, capability),), driver=driver)


def test_a_working_card_is_chosen() -> None:
    facts = Facts()
    verdict = choose_device("auto", facts, with_card())
    assert verdict == DeviceVerdict("cuda:0", "NVIDIA H100", "NVIDIA H100 passed its trial")
    assert facts.tried == ["cuda:0"]


def test_a_requested_cpu_is_used_without_looking_for_cards() -> None:
    facts = Facts(is_available=RuntimeError("must not be asked"))
    assert choose_device("cpu", facts, BARE).device == "cpu"
    assert facts.tried == []


@pytest.mark.parametrize(
    "facts",
    [
        Facts(build="2.13.0+cpu", cuda=None),
        Facts(is_available=False, start_fails=RuntimeError(NO_DRIVER)),
        Facts(is_available=False, start_fails=RuntimeError("No CUDA GPUs are available")),
    ],
    ids=["built without CUDA", "no driver", "no card"],
)
def test_a_machine_without_a_card_gets_no_warning(facts: Facts) -> None:
    verdict = choose_device("auto", facts, BARE)
    assert verdict.device == "cpu"
    assert verdict.reason == "no NVIDIA card was found, so videos are generated on the processor"
    assert verdict.warnings == ()


@pytest.mark.parametrize(
    ("facts", "hardware", "says", "helps"),
    [
        (
            Facts(build="2.13.0+cpu", cuda=None),
            with_card(),
            "torch 2.13.0+cpu is built without CUDA, so NVIDIA H100 cannot be used",
            "wheel for CUDA 13.0 (cu130)",
        ),
        (
            Facts(build="2.13.0+cpu", cuda=None),
            replace(BARE, findings=("NVIDIA's library could not be started: Driver Not Loaded",)),
            "Driver Not Loaded",
            "repair the NVIDIA driver",
        ),
        (
            Facts(is_available=False, start_fails=RuntimeError(TOO_OLD)),
            with_card(driver="470.1"),
            "driver on your system is too old",
            "Update the NVIDIA driver",
        ),
        (
            Facts(is_available=False, start_fails=RuntimeError(TOO_OLD)),
            with_card(driver="535.1"),
            "driver on your system is too old",
            "CUDA 12.6 (cu126), which the driver 535.1 can run",
        ),
        (
            Facts(is_available=RuntimeError("NVML: Unknown Error")),
            with_card(),
            "cannot start CUDA: NVML: Unknown Error",
            "repair the NVIDIA driver",
        ),
        (
            Facts(is_available=False, start_fails=RuntimeError(NO_DRIVER)),
            replace(BARE, findings=("NVIDIA's library could not be started: Version mismatch",)),
            "Found no NVIDIA driver",
            "repair the NVIDIA driver",
        ),
        (Facts(seen=()), BARE, "lists no card", "CUDA_VISIBLE_DEVICES"),
        (Facts(is_available=False, seen=()), with_card(), "sees NVIDIA H100", "CUDA_VISIBLE_DEVICES"),
        (Facts(seen=RuntimeError("device not ready")), BARE, "device not ready", "repair"),
        (
            Facts(seen=[BLACKWELL], broken={"cuda:0": RuntimeError(NO_KERNEL)}),
            with_card("NVIDIA RTX 5090", (12, 0)),
            "NVIDIA RTX 5090 has compute capability 12.0, for which torch 2.13.0+cu126 has no code (sm_50, ",
            "wheel for CUDA 13.0 (cu130)",
        ),
        (
            Facts(seen=[BLACKWELL], broken={"cuda:0": RuntimeError(NO_KERNEL)}),
            with_card("NVIDIA RTX 5090", (12, 0), driver="570.1"),
            "has no code",
            "Update the NVIDIA driver 570.1 to 580 or newer, then install torch's wheel for CUDA 13.0",
        ),
        (
            Facts(
                build="2.13.0+cu130",
                cuda="13.0",
                seen=[Card(0, "Tesla P100", (6, 0))],
                sets=("sm_75", "sm_80", "sm_90", "sm_100", "sm_120"),
                broken={"cuda:0": RuntimeError(NO_KERNEL)},
            ),
            with_card("Tesla P100", (6, 0)),
            "compute capability 6.0",
            "CUDA 12.6 (cu126), the last one for cards of this age",
        ),
        (
            Facts(broken={"cuda:0": torch.OutOfMemoryError("CUDA out of memory")}),
            with_card(),
            "NVIDIA H100 failed its trial: CUDA out of memory",
            "another program",
        ),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:24],
)
def test_a_failure_is_reported_with_a_remedy_and_the_cpu_takes_over(
    facts: Facts, hardware: HardwareProfile, says: str, helps: str
) -> None:
    verdict = choose_device("auto", facts, hardware)
    assert verdict.device == "cpu"
    assert verdict.reason == "no card can be used, so videos are generated on the processor"
    (warning,) = verdict.warnings
    assert says in warning
    assert helps in warning
    with pytest.raises(DeviceUnusable) as caught:
        choose_device("cuda", facts, hardware)
    assert says in caught.value.message
    assert any(helps in step for step in caught.value.next_steps)
    assert "auto" in caught.value.next_steps[-1]


def test_the_second_card_works_where_the_first_does_not() -> None:
    second = replace(HOPPER, index=1)
    facts = Facts(seen=[BLACKWELL, second], broken={"cuda:0": RuntimeError(NO_KERNEL)})
    verdict = choose_device("auto", facts, with_card())
    assert verdict.device == "cuda:1"
    assert len(verdict.warnings) == 1
    assert "RTX 5090" in verdict.warnings[0]
    assert choose_device("cuda", facts, with_card()).device == "cuda:1"
    with pytest.raises(DeviceUnusable, match="RTX 5090"):
        choose_device("cuda:0", facts, with_card())


def test_a_working_card_overrides_the_list_of_the_build() -> None:
    assert choose_device("auto", Facts(seen=[BLACKWELL]), with_card()).device == "cuda:0"


class Hanging(Facts):
    """A card whose driver call never returns."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self.released = released

    def compute(self, device: str) -> None:
        self.released.wait()


def test_a_hanging_card_is_not_waited_for() -> None:
    released = threading.Event()
    try:
        verdict = choose_device("auto", Hanging(released), with_card(), seconds=0.2)
        assert verdict.device == "cpu"
        assert verdict.warnings == (
            "the cards did not answer within 0.2 s. Restart the machine, or update the driver.",
        )
        with pytest.raises(DeviceUnusable, match="did not answer"):
            choose_device("cuda", Hanging(released), with_card(), seconds=0.2)
    finally:
        released.set()


def test_an_unrelated_error_is_not_taken_for_a_failing_card() -> None:
    with pytest.raises(KeyError):
        choose_device("auto", Facts(broken={"cuda:0": KeyError("a bug of ours")}), with_card())


def test_a_device_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DeviceUnusable, match="sees no such card"):
        choose_device("cuda:3", Facts(), with_card())
    for setting in ("gpu", "cuda:x", "", "cuda:0 "):
        with pytest.raises(DeviceUnusable, match="WAN22_DEVICE: there is no device"):
            choose_device(setting, Facts(), with_card())


@pytest.mark.parametrize(
    ("capability", "sets", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_86"], True),  # machine code of the same major version, not newer
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # the driver compiles PTX for newer cards
        ((8, 0), ["compute_90"], False),
        ((10, 0), ["sm_90a", "compute_90a"], False),  # architecture-specific
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100f"], True),  # shared by a family
        ((12, 0), ["compute_100f"], False),
        ((9, 0), [], False),
        ((9, 0), ["gfx942"], False),
    ],
)
def test_builds_with_code_for_a_card(capability: tuple[int, int], sets: list[str], runs: bool) -> None:
    assert runs_on(capability, sets) is runs


def test_torchs_trial_passes_on_a_working_device(device: str) -> None:
    TorchDevices().compute(device)


def test_the_torch_of_this_process_answers_every_query() -> None:
    """Whatever it reports on this machine, a device is chosen."""
    facts = TorchDevices()
    assert facts.build == torch.__version__
    ask: list[Callable[[], object]] = [facts.available, facts.cards, facts.architectures]
    assert len([question() for question in ask]) == 3
    assert choose_device("auto", facts, BARE).device in {"cpu", *(card.device for card in facts.cards())}
