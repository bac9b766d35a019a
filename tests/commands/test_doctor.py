"""`wan22 doctor`: what the engine told, in findings; and the command as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.commands import doctor
from backend.commands.doctor import SMALLEST, Finding, examine
from backend.core.planning.abilities import AttentionSetting, KernelVerdict, PrecisionVerdict, Verdict
from backend.core.planning.hardware import GIB, Gpu, detect_hardware
from backend.core.settings import Settings, load_settings
from backend.services.planning.self_test import EngineAnswer
from tests.commands.support import invoke

CARD = {
    "torch": "2.13.0+cu130",
    "cuda": "13.0",
    "architectures": ["sm_90", "sm_120"],
    "device": "cuda:0",
    "name": "NVIDIA H100",
    "reason": "NVIDIA H100 passed its trial",
    "warnings": ["NVIDIA Z failed its trial: broken. Update the driver."],
}
KERNELS = {
    "native": KernelVerdict("native", Verdict.OK, "torch's own", 0.002, 0.001),
    "cudnn": KernelVerdict("cudnn", Verdict.OK, "takes 0.50 of the time of torch's own", 0.001, 0.001),
    "flash": KernelVerdict("flash", Verdict.NOT_INSTALLED, "its package is missing"),
    "flash3": KernelVerdict("flash3", Verdict.WRONG, "differs from float32 by 0.5, 0.016 is allowed", error=0.5),
}
WHOLE = EngineAnswer(CARD, PrecisionVerdict("bfloat16", "right"), KERNELS, done=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def told(settings: Settings, answer: EngineAnswer) -> dict[str, list[Finding]]:
    """Examine with an engine that gives this answer; findings by subject."""
    asked: list[tuple[str, AttentionSetting]] = []

    def ask(device: str, wish: AttentionSetting) -> EngineAnswer:
        asked.append((device, wish))
        return answer

    found: dict[str, list[Finding]] = {}
    for finding in examine(settings, offline=True, ask=ask):
        found.setdefault(finding.subject, []).append(finding)
    assert asked == [(settings.device, settings.attention)]
    return found


def test_what_the_engine_told_is_in_the_findings(settings: Settings) -> None:
    found = told(settings, WHOLE)
    assert found["torch build"] == [
        Finding("ok", "torch build", "2.13.0+cu130, CUDA 13.0, code for sm_90, sm_120"),
    ]
    assert found["device"] == [
        Finding("ok", "device", "cuda:0 (NVIDIA H100): NVIDIA H100 passed its trial"),
        Finding("note", "device", "NVIDIA Z failed its trial: broken. Update the driver."),
    ]
    assert found["precision"][0].text == "bfloat16: right"
    assert found["attention"][0].text == "cudnn is used (WAN22_ATTENTION is auto)"
    assert found["attention cudnn"][0].text.endswith("1.00 ms, 1.0e-03 from float32")
    assert [found[f"attention {name}"][0].grade for name in KERNELS] == ["ok", "ok", "note", "note"]
    assert "engine" not in found


@pytest.mark.parametrize(
    ("facts", "precision", "plan"),
    [
        ({}, "bfloat16", "resident-bf16"),
        ({}, "float32", "expert-swap-fp32"),
        ({"device": "cpu", "name": "processor"}, "float32", "does not fit this machine"),
    ],
)
def test_plans_are_those_of_what_the_engine_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], precision: str, plan: str
) -> None:
    card = Gpu(0, "NVIDIA H100", 80 * GIB, 0, None, (9, 0))
    seen = replace(detect_hardware(), memory_total=128 * GIB, memory_limit=None, gpus=(card,))
    monkeypatch.setattr(doctor, "detect_hardware", lambda _folder: seen)
    answer = EngineAnswer(CARD | facts, PrecisionVerdict(precision, "tried"), KERNELS, done=True)
    (finding,) = told(settings, answer)["T2V-A14B plan"]
    assert plan in finding.text


def test_a_kernel_that_was_asked_for_and_is_not_right_is_a_note(tmp_path: Path) -> None:
    found = told(load_settings(home=tmp_path, attention="flash3"), WHOLE)
    assert [finding.grade for finding in found["attention"]] == ["ok", "note"]
    assert found["attention"][0].text.startswith("native is used")


def test_a_device_that_was_ordered_and_cannot_be_used_is_bad(tmp_path: Path) -> None:
    facts = {
        "torch": "2.13.0+cpu",
        "cuda": None,
        "architectures": [],
        "unusable": "no such card",
        "next_steps": ["Do."],
    }
    found = told(load_settings(home=tmp_path, device="cuda"), EngineAnswer(facts))
    assert found["device"] == [Finding("bad", "device", "no such card. Do.")]
    assert found["torch build"][0].text == "2.13.0+cpu, without CUDA"


@pytest.mark.parametrize(("late", "grade"), [(False, "bad"), (True, "note")])
def test_an_engine_that_could_not_be_asked_is_said(settings: Settings, late: bool, grade: str) -> None:
    failure = "the engine could not be queried: its process ended with SIGSEGV"
    (finding,) = told(settings, EngineAnswer(failure=failure, late=late))["engine"]
    assert (finding.grade, finding.text) == (grade, failure)


def test_the_models_folder_is_read_where_there_is_something_to_read(settings: Settings) -> None:
    assert "not measured" in told(settings, WHOLE)["disk"][0].text
    settings.paths.create()
    (settings.paths.models / "weights").write_bytes(bytes(SMALLEST))
    text = told(settings, WHOLE)["disk"][0].text
    assert text.endswith("GB/s, measured")


def test_the_command_asks_the_real_engine_and_speaks_json(tmp_path: Path) -> None:
    done = invoke("doctor", "--json", "--offline", home=tmp_path / "home")
    assert done.returncode == 0, done.stdout
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    found = {finding["subject"]: finding for finding in answer["findings"]}
    assert found["model hub"]["text"] == "not contacted (--offline)"
    for subject in ("torch build", "device", "precision", "attention", "attention native", "disk", "T2V-A14B plan"):
        assert found[subject]["text"], subject
    assert "engine" not in found
    assert not (tmp_path / "home").exists(), "it changes nothing"


def test_the_exit_status_says_that_something_must_be_repaired(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = invoke("doctor", "--json", "--offline", home=tmp_path / "file" / "home")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert [finding["subject"] for finding in answer["findings"] if finding["grade"] == "bad"] == ["home"]
