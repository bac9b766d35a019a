"""What the documents say is what the code does: maps, settings, states, errors, routes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from backend.app import create_app
from backend.core.domain import TRANSITIONS
from backend.core.errors.actions import ACTIONS
from backend.core.errors.cuda import DEVICE_KINDS
from backend.core.errors.tree import public_kinds
from backend.core.paths import Home
from backend.core.settings import ENV_PREFIX, ENVIRONMENT_ONLY, Settings, load_settings
from backend.services.system.configuration import configuration_of
from docs import generate

ROOT = Path(__file__).parents[2]
BACKEND = ROOT / "backend"
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()


def _tracked() -> set[str]:
    """Files of this checkout: tracked ones and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}


def test_derived_documents_are_up_to_date() -> None:
    """`make docs` writes them: the map of folders, the list of files, the schemas of the API."""
    assert generate.architecture() == ARCHITECTURE
    assert generate.FILES.read_text() == generate.file_list()
    assert generate.TROUBLESHOOTING.read_text() == generate.troubleshooting()
    assert generate.settings() == SETTINGS
    # Clients are generated from the schema: a change of it is meant, and is in the changelog.
    assert json.loads(generate.SCHEMA.read_text()) == json.loads(generate.schema())
    assert json.loads(generate.MESSAGES.read_text()) == json.loads(generate.messages())


def test_every_folder_and_every_module_says_what_it_is_for() -> None:
    modules = [name for name in _tracked() if name.endswith(".py") and name.startswith(("backend/", "training/"))]
    assert len(modules) > 200
    for name in modules:
        if "/migrations/" not in name:
            assert generate.purpose(ROOT / name), name


def test_where_to_look_names_what_is_there() -> None:
    text = (ROOT / "docs" / "where-to-look.md").read_text()
    rows = re.findall(r"^\| (.+?\?) \| `(.+?)` \| `(\w+)` \|$", text, re.MULTILINE)
    assert len(rows) >= 25
    for question, file, name in rows:
        assert (ROOT / file).is_file(), question
        defined = rf"^(?:\s*(?:async )?def|class) {name}\b|^{name}\b"
        assert re.search(defined, (ROOT / file).read_text(), re.MULTILINE), f"{question} {file} defines no {name}"


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_links_between_documents_lead_somewhere() -> None:
    checked = 0
    for name in _tracked():
        if not name.endswith(".md"):
            continue
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
            checked += 1
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"
    assert checked > 30


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    row = re.search(rf"^\| `{ENV_PREFIX}{name.upper()}` \| (.*?) \| (.*?) \|$", SETTINGS, re.MULTILINE)
    assert row, f"docs/settings.md has no row for {name}"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, list):
        default = json.dumps(default) if default else None
    shown = {"home": "`~/.wan22`"}.get(
        name,
        "none" if default in (None, "") else f"`{default}`".replace("`True`", "`true`").replace("`False`", "`false`"),
    )
    assert row[1] == shown
    assert row[2] == field.description


def test_every_setting_of_the_file_is_documented_from_its_definition() -> None:
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+ \| .+ \| .+) \|$", SETTINGS, re.MULTILINE))
    definitions = configuration_of(Home(ROOT)).definitions()
    variables = {name for name in definitions if name.startswith("settings.")}
    assert set(rows) == set(definitions) - variables
    for name, row in rows.items():
        assert row.endswith(f"| {definitions[name].rule.words} | {definitions[name].meaning}"), name
    assert {name.removeprefix("settings.") for name in variables} == {*Settings.model_fields} - {*ENVIRONMENT_ONLY}


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(rf"`{ENV_PREFIX}([A-Z_]+)`", SETTINGS))
    assert documented - {name.upper() for name in Settings.model_fields} == set()


def test_state_diagram_is_the_transition_table() -> None:
    block = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", ARCHITECTURE, re.DOTALL)
    assert block, "docs/architecture.md has no state diagram"
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", block[1], re.MULTILINE))
    assert drawn == {(str(old), str(new)) for old, new in TRANSITIONS}


def test_error_codes_are_unique_and_have_a_next_step() -> None:
    kinds = public_kinds()
    assert len(kinds) > 40
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    for kind in kinds:
        assert kind.suggestions, kind
        assert kind().message


def test_every_error_that_a_user_can_meet_is_explained() -> None:
    text = generate.TROUBLESHOOTING.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3} \| \w+ \| .+) \|$", text, re.MULTILINE))
    defined = re.findall(
        r"^    code = \"(\w+)\"$", "\n".join(p.read_text() for p in BACKEND.rglob("*.py")), re.MULTILINE
    )
    assert set(rows) == {*defined, "internal_error"}
    assert len(rows) > 70
    for name, row in rows.items():
        assert all(cell.strip() for cell in row.split("|")), name
    device = text[text.index("## Errors of a CUDA device") : text.index("## All errors")]
    for kind in DEVICE_KINDS:
        assert f"| `{kind.code}` |" in device
    for action in ACTIONS:
        assert f"| `{action}` |" in text


def test_every_route_is_in_the_api_map() -> None:
    paths = create_app(load_settings()).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    text = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", text, re.MULTILINE)) == served


def test_documents_name_no_absolute_path_of_a_machine() -> None:
    texts = [name for name in _tracked() if name.endswith((".md", ".py", ".toml", ".txt", ".json", "Makefile"))]
    for name in texts:
        text = (ROOT / name).read_text()
        assert not re.search(r"(?<![\w.])/(?:work|root|home/\w+)/\w", text), name
