"""The engine is tested in a separate process: its report, processes that die, and the stored result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.planning.abilities import AttentionSetting, KernelVerdict, PrecisionVerdict, Verdict
from backend.services.planning.self_test import EngineAnswer, ask_engine, find_abilities

CRASHING = ("-m", "tests.services.programs.kernels_that_crash")
CARD = ("cuda:0", "NVIDIA H100", "580.65")
WHOLE = EngineAnswer(
    facts={"torch": "2.13.0"},
    precision=PrecisionVerdict("bfloat16", "right"),
    kernels={
        "native": KernelVerdict("native", Verdict.OK, "torch's own", 1.0, 0.0),
        "flash": KernelVerdict("flash", Verdict.OK, "", 0.5, 0.0),
    },
    done=True,
)


class Engine:
    """An engine that returns given answers and records the questions."""

    def __init__(self, *answers: EngineAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, AttentionSetting]] = []

    def __call__(self, device: str, wish: AttentionSetting) -> EngineAnswer:
        self.asked.append((device, wish))
        return self.answers.pop(0)


def test_the_engine_of_this_machine_answers() -> None:
    answer = ask_engine("cpu", AttentionSetting.MATH)
    assert answer.failure is None
    assert answer.done
    assert answer.facts["device"] == "cpu"
    assert answer.precision is not None
    assert answer.precision.precision == "float32"
    assert list(answer.kernels) == ["native", "math"]
    assert all(found.right for found in answer.kernels.values())


def test_an_unusable_device_is_a_valid_result() -> None:
    answer = ask_engine("cuda:99", AttentionSetting.AUTO)
    assert answer.failure is None
    assert "cuda:99" in (answer.unusable or "")


def test_a_kernel_that_crashes_its_process_gets_a_verdict_and_the_rest_are_tested() -> None:
    answer = ask_engine("cpu", AttentionSetting.MATH, program=CRASHING)
    assert answer.done
    assert answer.failure is None
    assert answer.kernels["math"] == KernelVerdict("math", Verdict.FAILED, "its process ended with SIGKILL")
    assert answer.kernels["native"].right


def test_a_kernel_of_a_test_is_judged_in_that_process() -> None:
    answer = ask_engine("cpu", AttentionSetting.CUDNN, program=CRASHING)
    assert answer.kernels["cudnn"].verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (("-c", "raise SystemExit(3)"), "ended with exit status 3"),
        (("-c", "import sys; sys.exit('no torch here')"), "ended with exit status 1 (no torch here)"),
        (("-c", "import os; os.abort()"), "ended with SIGABRT"),
        (("-c", "print('words of a library'); print('[]')"), "ended with exit status 0"),
        (("-c", """print('{"trying": "native"}', flush=True); import os; os.abort()"""), "ended with SIGABRT"),
    ],
)
def test_an_engine_without_a_result_is_reported(program: tuple[str, ...], says: str) -> None:
    answer = ask_engine("cpu", AttentionSetting.AUTO, program=program)
    assert not answer.done
    assert says in (answer.failure or "")


def test_a_hanging_engine_is_killed() -> None:
    program = ("-c", "import threading; threading.Event().wait()")
    answer = ask_engine("cpu", AttentionSetting.AUTO, program=program, seconds=0.5)
    assert "did not end within 0.5 s" in (answer.failure or "")


def test_a_card_is_tested_once_and_again_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "abilities.json"
    engine = Engine(WHOLE, WHOLE, WHOLE, WHOLE)
    first = find_abilities(file, *CARD, AttentionSetting.AUTO, ask=engine)
    assert (first.attention, first.precision.precision, first.warnings) == ("flash", "bfloat16", ())
    assert find_abilities(file, *CARD, AttentionSetting.AUTO, ask=engine) == first
    assert engine.asked == [("cuda:0", AttentionSetting.AUTO)]
    device, name, _ = CARD
    find_abilities(file, device, name, "590.1", AttentionSetting.AUTO, ask=engine)
    find_abilities(file, device, "NVIDIA A100", "590.1", AttentionSetting.AUTO, ask=engine)
    find_abilities(file, device, "NVIDIA A100", "590.1", AttentionSetting.SPEED, ask=engine)
    assert len(engine.asked) == 4


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 1}'])
def test_an_unreadable_file_is_rewritten(tmp_path: Path, content: str) -> None:
    file = tmp_path / "abilities.json"
    file.write_text(content)
    engine = Engine(WHOLE)
    assert find_abilities(file, *CARD, AttentionSetting.AUTO, ask=engine).attention == "flash"
    assert json.loads(file.read_text())["abilities"]["attention"] == "flash"


def test_an_incomplete_result_is_not_stored_and_torchs_own_kernel_is_used(tmp_path: Path) -> None:
    file = tmp_path / "abilities.json"
    broken = replace(WHOLE, precision=None, done=False, failure="its process ended with SIGSEGV")
    found = find_abilities(file, *CARD, AttentionSetting.AUTO, ask=Engine(broken))
    assert (found.attention, found.precision.precision) == ("native", "bfloat16")
    assert "SIGSEGV" in found.warnings[0]
    assert not file.exists()


def test_a_processor_is_tested_only_with_a_named_kernel(tmp_path: Path) -> None:
    file = tmp_path / "abilities.json"
    for wish in (AttentionSetting.AUTO, AttentionSetting.SPEED, AttentionSetting.NATIVE):
        found = find_abilities(file, "cpu", "processor", None, wish, ask=Engine())
        assert (found.attention, found.precision.precision) == ("native", "float32")
    named = replace(WHOLE, precision=PrecisionVerdict("float32", "a processor"))
    found = find_abilities(file, "cpu", "processor", None, AttentionSetting.MATH, ask=Engine(named))
    assert found.attention == "native"
    assert "WAN22_ATTENTION asks for math" in found.warnings[0]
