"""What stays quantised is told by headers, of every expert or not at all; what cannot be read saves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Gguf

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager, packed_experts
from tests.support.weight_forms import write_gguf

T2V = MODELS["tiny-t2v-a14b"]
EXPERTS = ("transformer", "transformer_2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(EMBEDDED_MODELS / T2V.id, tmp_path / T2V.id)


def gguf_of(folder: Path, expert: str) -> Path:
    (path,) = (folder / expert).glob("*.gguf")
    return path


def test_the_expert_that_saves_least_stands_for_both(folder: Path) -> None:
    for expert in EXPERTS:
        write_gguf(folder, expert, Gguf.Q4_0)
    small = packed_experts(folder, T2V)
    shutil.rmtree(folder)
    shutil.copytree(EMBEDDED_MODELS / T2V.id, folder)
    write_gguf(folder, "transformer", Gguf.Q4_0)
    write_gguf(folder, "transformer_2", Gguf.Q8_0)
    mixed = packed_experts(folder, T2V)
    assert small is not None
    assert mixed is not None
    assert mixed.numbers == small.numbers
    assert mixed.bytes == pytest.approx(small.bytes * 34 / 18)


def test_an_expert_in_another_form_leaves_nothing_packed(folder: Path) -> None:
    assert packed_experts(folder, T2V) is None
    write_gguf(folder, "transformer", Gguf.Q8_0)
    assert packed_experts(folder, T2V) is None, "the other one is not"
    write_gguf(folder, "transformer_2", Gguf.F16)
    assert packed_experts(folder, T2V) is None, "that is no quantisation"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_cannot_be_read_leaves_nothing_packed(folder: Path, content: bytes) -> None:
    for expert in EXPERTS:
        write_gguf(folder, expert, Gguf.Q8_0)
    gguf_of(folder, "transformer").write_bytes(content)
    assert packed_experts(folder, T2V) is None
    shutil.rmtree(folder / "transformer")
    assert packed_experts(folder, T2V) is None


def test_two_files_of_one_expert_are_no_answer(folder: Path) -> None:
    for expert in EXPERTS:
        write_gguf(folder, expert, Gguf.Q8_0)
    one = gguf_of(folder, "transformer")
    shutil.copy(one, one.with_name("another.gguf"))
    assert packed_experts(folder, T2V) is None


def test_a_file_that_was_exchanged_is_looked_at_anew(folder: Path) -> None:
    for expert in EXPERTS:
        write_gguf(folder, expert, Gguf.Q8_0)
    before = packed_experts(folder, T2V)
    other = shutil.copytree(EMBEDDED_MODELS / T2V.id, folder.with_name("other"))
    for expert in EXPERTS:
        write_gguf(other, expert, Gguf.Q4_0)
        shutil.copyfile(gguf_of(other, expert), gguf_of(folder, expert))
    after = packed_experts(folder, T2V)
    assert before is not None
    assert after is not None
    assert after.bytes < before.bytes


def test_a_manager_looks_where_the_model_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    manager = ModelManager(home, has_gpu=False)
    assert manager.packed(MODELS["T2V-A14B"]) is None, "it is not here"
    shutil.copytree(EMBEDDED_MODELS / T2V.id, home.model_of("T2V-A14B"))
    for expert in EXPERTS:
        write_gguf(home.model_of("T2V-A14B"), expert, Gguf.Q8_0)
    assert manager.packed(MODELS["T2V-A14B"]) is not None
    assert manager.packed(T2V) is None
