"""What is installed is what was chosen: every package has one version, and no package runs a script on the way.

Held against the packages of this environment, with all that they need themselves.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.!]*)")
LOCKFILES = [path for path in ROOT.rglob("package-lock.json") if "node_modules" not in path.parts]


def pins(name: str) -> dict[str, Version]:
    """Read a file of constraints, each of whose lines is one exact version."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        match = PIN.fullmatch(line)
        assert match is not None, f"{name}: {line} is no exact version"
        assert canonicalize_name(match[1]) not in found, f"{name} names {match[1]} twice"
        found[canonicalize_name(match[1])] = Version(match[2])
    return found


def declared() -> list[str]:
    """Return what pyproject.toml asks for, of all extras and groups."""
    project = PROJECT["project"]
    groups = [*project["optional-dependencies"].values(), *PROJECT["dependency-groups"].values()]
    listed: list[str] = list(project["dependencies"])
    for group in groups:
        listed += [one for one in group if isinstance(one, str)]
    return listed


def loose(wanted: Iterable[str], pinned: Mapping[str, Version]) -> list[str]:
    """Return what these requirements need, with all that comes with it, and what has no suitable pin of it."""
    waiting = [(Requirement(one), "") for one in wanted]
    seen: set[tuple[str, str]] = set()
    found = []
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        version = pinned.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(str(requirement))
            continue
        for inner in ("", *requirement.extras):
            if (name, inner) not in seen:
                seen.add((name, inner))
                waiting += [(Requirement(one), inner) for one in distribution(name).requires or ()]
    return sorted(set(found))


def test_every_package_and_all_that_it_needs_has_one_version() -> None:
    pinned = pins("constraints.txt")
    assert loose(declared(), pinned) == []
    for name in ("fastapi", "torch", "pytest"):
        assert Version(distribution(name).version).public == str(pinned[canonicalize_name(name)]), name


@pytest.mark.parametrize("gone", ["mdurl", "torch", "execnet"])  # of rich's, declared, of a tool's
def test_the_rule_above_sees_a_missing_one(gone: str) -> None:
    pinned = pins("constraints.txt")
    del pinned[gone]
    assert any(one.startswith(gone) for one in loose(declared(), pinned))
    assert loose(["rich>=99"], pins("constraints.txt")) == ["rich>=99"]


def test_what_builds_the_package_has_one_version_too() -> None:
    pinned = pins("constraints-build.txt")
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert backend.specifier.contains(pinned[backend.name])


def test_every_installation_is_constrained() -> None:
    commands = re.findall(r"-m pip install .*", (ROOT / "Makefile").read_text())
    assert len(commands) >= 4
    for command in commands:
        assert "--constraint $(CONSTRAINTS)" in command or re.search(r'"pip==\$\(PIP_VERSION\)"', command), command
        assert ("--editable" in command) is ("--build-constraint $(BUILD_CONSTRAINTS)" in command), command


@pytest.mark.parametrize("lockfile", LOCKFILES, ids=lambda path: path.parent.name)
def test_packages_of_node_are_locked_by_digest_and_run_nothing(lockfile: Path) -> None:
    lock = json.loads(lockfile.read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    for name, one in packages.items():
        inside = one.get("inBundle", False)  # part of the archive of another one, whose digest holds for it
        assert inside or one["integrity"].startswith("sha512-"), name
        assert not str(one.get("resolved", "")).startswith(("git", "http:")), name
    manifest = json.loads((lockfile.parent / "package.json").read_text())
    versions = {**manifest.get("dependencies", {}), **manifest.get("devDependencies", {})}
    assert versions
    assert {name: version for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)} == {}
    assert not {"preinstall", "install", "postinstall", "prepare"} & manifest.get("scripts", {}).keys()


def test_no_script_of_a_package_of_node_runs() -> None:
    for name in ("frontend/build.py", "tests/support/node.py"):
        calls = re.findall(r'\[[^\]]*"ci"[^\]]*\]', (ROOT / name).read_text())
        assert calls, name
        assert all('"--ignore-scripts"' in call for call in calls), name


#: Calls that fetch code or models by a name; the downloader has its own way to the hub.
_FETCHING = {"snapshot_download", "hf_hub_download", "urlopen", "urlretrieve", "load_state_dict_from_url", "get_kernel"}


def fetching(source: str) -> list[str]:
    """Return the calls of a module that may fetch something when they run."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {word.arg: word.value for word in call.keywords}
        local = given.get("local_files_only")
        if name in _FETCHING or "trust_remote_code" in given:
            found.append(name)
        if name.startswith("from_pretrained") and not (isinstance(local, ast.Constant) and local.value is True):
            found.append(name)
    return found


def test_no_library_is_asked_to_fetch_anything() -> None:
    asked = 0
    for path in (ROOT / "backend").rglob("*.py"):
        text = path.read_text()
        asked += "from_pretrained" in text
        assert fetching(text) == [], path
    assert asked >= 1
    assert fetching("X.from_pretrained(a)\nhub.snapshot_download(b)\nf(trust_remote_code=1)") == [
        "from_pretrained",
        "snapshot_download",
        "f",
    ]
