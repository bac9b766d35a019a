"""The table of models of a home folder: the owner's entries join it or are left out, and nothing else happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from backend.core.catalogue.table import BUILT_IN, find_model, models_in_force
from backend.core.errors.requests import UnknownModel
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.models.own.configuration import ModelConfigurationManager, table_of
from backend.models.own.model_entry import ModelEntry


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).create()


def _write(home: Home, models: object, **others: object) -> None:
    part = home.config_file.with_suffix(".new")
    part.write_text(json.dumps({"models": models} | others))
    part.replace(home.config_file)


def test_without_a_file_the_built_in_models_are_in_force(home: Home) -> None:
    assert ModelConfigurationManager(home).refresh() == BUILT_IN
    assert not home.config_file.exists()


def test_an_entry_makes_a_model_with_the_structure_of_its_base_and_its_own_defaults(home: Home) -> None:
    defaults = {"steps": 8, "guidance_scale": 1, "flow_shift": 8.0, "width": 832, "height": 480, "negative_prompt": ""}
    entry = {"base": "ti2v", "title": "Mine", "licence": "MIT", "repository": "me/mine", "aliases": ["my-five"]}
    _write(home, {"mine": entry | {"defaults": defaults}})
    ModelConfigurationManager(home).refresh()
    spec, base = find_model("My_Five"), BUILT_IN.find("TI2V-5B")
    assert spec is find_model("mine")
    assert (spec.id, spec.structure, spec.title, spec.repo_id, spec.licence) == (
        "mine", "TI2V-5B", "Mine", "me/mine", "MIT",
    )  # fmt: skip
    assert (spec.steps, spec.guidance_scale, spec.width, spec.height, spec.negative_prompt) == (8, 1, 832, 480, "")
    assert (spec.fps, spec.num_frames, spec.max_pixels, spec.mode) == (
        base.fps, base.num_frames, base.max_pixels, base.mode,
    )  # fmt: skip
    assert not spec.embedded
    assert models_in_force().ids == [*BUILT_IN.ids, "mine"]


def test_a_built_in_model_may_get_other_defaults_and_names(home: Home) -> None:
    _write(home, {"T2V-A14B": {"defaults": {"steps": 20, "guidance_scale_2": 2.0}, "aliases": ["big"]}})
    table = ModelConfigurationManager(home).refresh()
    spec = table.find("big")
    assert (spec.id, spec.steps, spec.guidance_scale_2) == ("T2V-A14B", 20, 2.0)
    assert table.ids == BUILT_IN.ids
    assert find_model("t2v") is spec


BROKEN: dict[str, tuple[str, Any, str]] = {
    "no object": ("mine", [], "must be an object"),
    "no base": ("mine", {"title": "x"}, "base is missing"),
    "unknown base": ("mine", {"base": "sora"}, "base must be one of"),
    "the user's own as base": ("mine", {"base": "good"}, "base must be one of"),
    "id of a built-in": ("t2v_a14b", {"base": "TI2V-5B"}, "belongs to T2V-A14B"),
    "alias of a built-in": ("image2video", {"base": "TI2V-5B"}, "belongs to I2V-A14B"),
    "own alias taken": ("mine", {"base": "TI2V-5B", "aliases": ["tiny"]}, "belongs to tiny-t2v-a14b"),
    "another entry's name": ("GOOD", {"base": "TI2V-5B"}, "belongs to good"),
    "auto": ("auto", {"base": "TI2V-5B"}, "is reserved"),
    "alias auto": ("mine", {"base": "TI2V-5B", "aliases": ["Auto"]}, "is reserved"),
    "a path": ("../mine", {"base": "TI2V-5B"}, "an id has"),
    "a lock's name": ("mine.lock", {"base": "TI2V-5B"}, "an id has"),
    "control characters": ("mine\x1b[2J", {"base": "TI2V-5B"}, "an id has"),
    "two places": ("mine", {"base": "TI2V-5B", "folder": "a", "repository": "a/b"}, "exclude each other"),
    "no repository": ("mine", {"base": "TI2V-5B", "repository": "https://example.org/a/b"}, "repository"),
    "another title": ("T2V-A14B", {"title": "x"}, "title of a built-in model is fixed"),
    "another repository": ("T2V-A14B", {"repository": "a/b"}, "repository of a built-in model is fixed"),
}  # fmt: skip


@pytest.mark.parametrize(("model_id", "entry", "sentence"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_entry_is_left_out_and_said(home: Home, model_id: str, entry: object, sentence: str) -> None:
    _write(home, {"good": {"base": "TI2V-5B"}, model_id: entry})
    table = ModelConfigurationManager(home).refresh()
    assert table.ids == [*BUILT_IN.ids, "good"]
    assert table.specs[:-1] == BUILT_IN.specs
    (fault,) = table.faults
    assert sentence in fault
    assert fault.startswith("config.json, line 1, column ")
    assert f"`models.{model_id[:4]}" in fault
    assert fault.isprintable()
    assert str(home.root) not in fault


#: Entries with one unusable key, which is ignored while the rest holds.
PARTLY: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"base": "TI2V-5B", "stepz": 1}, "stepz is not a key"),
    "unknown key of a control character": ({"base": "TI2V-5B", "st\x1b[2J": 1}, "is not a key"),
    "a number for a title": ({"base": "TI2V-5B", "title": 5}, "title"),
    "one impossible alias": ({"base": "TI2V-5B", "aliases": ["fine", "/"]}, "aliases.1"),
    "unknown default": ({"base": "TI2V-5B", "defaults": {"stepz": 1}}, "defaults.stepz is not a key"),
    "a text for a number": ({"base": "TI2V-5B", "defaults": {"steps": "8"}}, "defaults.steps"),
    "defaults of another type": ({"base": "TI2V-5B", "defaults": [8]}, "defaults"),
    "too many steps": ({"base": "TI2V-5B", "defaults": {"steps": 101}}, "Steps must be between 1 and 100"),
    "not a number": ({"base": "TI2V-5B", "defaults": {"fps": float("nan")}}, "Fps must be between"),
    "illegal size": ({"base": "TI2V-5B", "defaults": {"height": 720}}, "multiples of 32"),
    "illegal frames": ({"base": "I2V-A14B", "defaults": {"num_frames": 80}}, "4k+1"),
    "guidance of no expert": ({"base": "TI2V-5B", "defaults": {"guidance_scale_2": 1.0}}, "two experts"),
}


@pytest.mark.parametrize(("entry", "sentence"), PARTLY.values(), ids=list(PARTLY))
def test_one_unusable_key_costs_an_entry_nothing_else(home: Home, entry: dict[str, Any], sentence: str) -> None:
    if not isinstance(entry.get("defaults"), list):
        entry = entry | {"defaults": entry.get("defaults", {}) | {"flow_shift": 3.5}}
    _write(home, {"mine": entry | {"licence": "MIT"}})
    table = ModelConfigurationManager(home).refresh()
    spec = table.find("mine")
    base = BUILT_IN.find(entry["base"])
    assert (spec.licence, spec.steps, spec.fps, spec.height) == ("MIT", base.steps, base.fps, base.height)
    assert spec.flow_shift == (base.flow_shift if isinstance(entry["defaults"], list) else 3.5)
    (fault,) = table.faults
    assert sentence in fault
    assert fault.startswith("config.json, line 1, column ")
    assert fault.isprintable()


def test_a_fault_names_the_place_of_its_key(home: Home) -> None:
    home.config_file.write_text(
        '{\n  "models": {\n    "mine": {\n      "base": "TI2V-5B",\n      "defaults": {"steps": "x"}\n    }\n  }\n}'
    )
    (fault,) = ModelConfigurationManager(home).refresh().faults
    assert fault.startswith("config.json, line 5, column 20: `models.mine.defaults.steps` is ignored")


@pytest.mark.parametrize("text", ["{", "[]", '{"models": []}'])
def test_an_unreadable_file_leaves_the_table_as_it_was_and_is_said(home: Home, text: str) -> None:
    _write(home, {"good": {"base": "TI2V-5B"}})
    manager = ModelConfigurationManager(home)
    manager.refresh()
    home.config_file.write_text(text)
    table = manager.refresh()
    assert table.ids == [*BUILT_IN.ids, "good"]
    assert len(table.faults) == 1
    assert ModelConfigurationManager(home).refresh().ids == BUILT_IN.ids  # a process that starts now
    _write(home, {})
    assert manager.refresh() == BUILT_IN


def test_what_changes_in_the_file_is_in_force_at_the_next_look_and_only_then(home: Home) -> None:
    manager = ModelConfigurationManager(home)
    manager.refresh()
    _write(home, {"mine": {"base": "tiny"}})
    with pytest.raises(UnknownModel):
        find_model("mine")
    table = manager.refresh()
    assert find_model("mine").structure == "tiny-t2v-a14b"
    assert manager.refresh() is table  # nothing is read again
    status = home.config_file.stat()
    home.config_file.write_text(json.dumps({"models": {}}))  # in place, as an editor may do it
    os.utime(home.config_file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    manager.refresh()
    with pytest.raises(UnknownModel):
        find_model("mine")


def test_two_homes_in_one_process_each_see_their_own_after_a_look(tmp_path: Path) -> None:
    managers = []
    for name in ("one", "two"):
        home = Home(tmp_path / name).create()
        _write(home, {f"mine-{name}": {"base": "tiny"}})
        managers.append(ModelConfigurationManager(home))
    for manager, own in zip([*managers, managers[0]], ("mine-one", "mine-two", "mine-one"), strict=True):
        manager.refresh()
        assert models_in_force().ids[-1] == own


def test_entries_are_added_and_removed_and_the_rest_of_the_file_stays(home: Home) -> None:
    _write(home, {"broken": 7}, other={"kept": True})
    manager = ModelConfigurationManager(home)
    assert manager.has("broken")
    entry = ModelEntry.read({"base": "tiny", "defaults": {"steps": 4}})
    assert manager.add("mine", entry).steps == 4
    written = json.loads(home.config_file.read_text())
    assert written == {
        "models": {"broken": 7, "mine": {"base": "tiny", "defaults": {"steps": 4}}},
        "other": {"kept": True},
    }
    with pytest.raises(BadSettings, match="already"):
        manager.add("mine", entry)
    with pytest.raises(BadSettings, match="belongs to T2V-A14B"):
        manager.add("T2V", entry)
    assert json.loads(home.config_file.read_text()) == written
    manager.remove("mine")
    manager.remove("broken")
    assert json.loads(home.config_file.read_text()) == {"models": {}, "other": {"kept": True}}
    assert models_in_force() == BUILT_IN


def test_a_name_that_several_models_begin_with_is_no_name() -> None:
    table = table_of({"t2v-anime": {"base": "T2V-A14B"}, "five-soft": {"base": "TI2V-5B"}})
    assert table.faults == ()
    assert table.find("five").id == "five-soft"
    assert table.find("t2v-an").id == "t2v-anime"
    assert table.find("t2v").id == "T2V-A14B"
    with pytest.raises(UnknownModel):
        table.find("t2v-a")
