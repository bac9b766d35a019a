"""Writes what the documents derive from the code: the map of folders, the list of files, the schemas, the errors.

`make docs` runs it; the tests compare what it would write with what is there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CODE: Final = ("backend", "training", "benchmarks")
ARCHITECTURE: Final = ROOT / "docs" / "architecture.md"
FILES: Final = ROOT / "docs" / "files.md"
SCHEMA: Final = ROOT / "docs" / "openapi.json"
MESSAGES: Final = ROOT / "docs" / "asyncapi.json"
SETTINGS: Final = ROOT / "docs" / "settings.md"
TROUBLESHOOTING: Final = ROOT / "docs" / "troubleshooting.md"
_DERIVED: Final = re.compile(r"<!-- (actions|devices|errors|variables|sections) -->\n.*?<!-- end -->", re.DOTALL)
_MAP: Final = re.compile(r"(?<=<!-- map -->\n```\n).*?(?=```)", re.DOTALL)


def purpose(path: Path) -> str:
    """Return the first sentence of a module's docstring, or of a folder's `__init__.py`; empty where there is none."""
    file = path / "__init__.py" if path.is_dir() else path
    document = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else None
    return "" if document is None else document.partition("\n\n")[0].replace("\n", " ").rstrip(".")


def folder_map() -> str:
    """Return one line for each folder of code, with what it owns."""
    lines = []
    for root in CODE:
        folders = [ROOT / root, *sorted(path for path in (ROOT / root).rglob("*") if (path / "__init__.py").exists())]
        for folder in folders:
            depth = len(folder.relative_to(ROOT).parts) - 1
            lines.append(f"{'  ' * depth + folder.name + '/':<20}{purpose(folder)}\n")
    return "".join(lines)


def architecture() -> str:
    """Return the architecture document with the map as it is now."""
    return _MAP.sub(lambda _: folder_map(), ARCHITECTURE.read_text(encoding="utf-8"), count=1)


def file_list() -> str:
    """Return the list of every file of code, by folder."""
    lines = ["# Files\n\nEvery module, by folder, with what it owns. Written by `make docs` from the docstrings.\n"]
    for root in CODE:
        for folder in [ROOT / root, *sorted(path for path in (ROOT / root).rglob("*") if path.is_dir())]:
            files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            if not files or folder.name == "versions":
                continue
            lines.append(
                f"\n## `{folder.relative_to(ROOT).as_posix()}/`\n\n{purpose(folder)}\n\n".replace("\n\n\n", "\n")
            )
            lines += [f"- `{path.name}`: {purpose(path)}\n" for path in files]
    return "".join(lines)


def schema() -> str:
    """Return the OpenAPI schema of the server, with its keys in order."""
    from backend.app import create_app
    from backend.core.settings import load_settings

    return json.dumps(create_app(load_settings()).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def messages() -> str:
    """Return the AsyncAPI description of the live messages, with its keys in order."""
    from backend.api.live.asyncapi import document

    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def troubleshooting() -> str:
    """Return the document about errors with its tables as the tree of errors is now."""
    return _filled(TROUBLESHOOTING, {"actions": _actions, "devices": _devices, "errors": _errors})


def settings() -> str:
    """Return the document about settings with its tables as the definitions are now."""
    return _filled(SETTINGS, {"variables": _variables, "sections": _sections})


def _filled(document: Path, tables: dict[str, Callable[[], str]]) -> str:
    return _DERIVED.sub(
        lambda found: f"<!-- {found[1]} -->\n{tables[found[1]]()}<!-- end -->", document.read_text(encoding="utf-8")
    )


def _variables() -> str:
    """Return the table of the operator's settings by their environment variables."""
    from backend.core.settings import ENV_PREFIX, Settings

    text = "\n| variable | default | meaning |\n|---|---|---|\n"
    for name, field in Settings.model_fields.items():
        default = "~/.wan22" if name == "home" else field.get_default(call_default_factory=True)
        text += f"| `{ENV_PREFIX}{name.upper()}` | {_value(default)} | {field.description} |\n"
    return text + "\n"


def _sections() -> str:
    """Return the table of the settings that only config.json has."""
    from backend.core.paths import Home
    from backend.core.settings import SECTION
    from backend.services.system.configuration import configuration_of

    text = "\n| setting | default | legal values | meaning |\n|---|---|---|---|\n"
    for name, one in configuration_of(Home(ROOT)).definitions().items():
        if not name.startswith(f"{SECTION}."):
            text += f"| `{name}` | {_value(one.default)} | {one.rule.words} | {one.meaning} |\n"
    return text + "\n"


def _value(value: object) -> str:
    """Return a default as a reader writes it."""
    if value is None or value in ("", [], ()):
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value)}`"


def _errors() -> str:
    """Return a table of errors for each category."""
    import backend.commands.client
    import backend.commands.replay  # noqa: F401 - both add errors to the tree
    from backend.core.errors.base import Category
    from backend.core.errors.tree import public_kinds

    text = ""
    for category in Category:
        text += f"\n### {category.value}\n\n| code | status | severity | what it means | next step | retry helps |\n"
        text += "|---|---|---|---|---|---|\n"
        for kind in sorted(public_kinds(), key=lambda kind: kind.code):
            if kind.category is category:
                steps = "<br>".join(step.rstrip(".") + "." for step in kind.suggestions)
                meaning = kind().message.rstrip(".")
                helps = "yes" if kind.retryable else "no"
                text += f"| `{kind.code}` | {kind.status} | {kind.severity.value} | {meaning}. | {steps} | {helps} |\n"
    return text + "\n"


def _devices() -> str:
    """Return the table of the errors of a device."""
    from backend.core.errors.cuda import DEVICE_KINDS, DEVICE_MEMORY_SIGNS, HOST_MEMORY_SIGNS
    from backend.core.errors.generation import OutOfMemory

    text = "\n| code | recognised by | ends | next step |\n|---|---|---|---|\n"
    rows = [(OutOfMemory, (*DEVICE_MEMORY_SIGNS, *HOST_MEMORY_SIGNS)), *((kind, kind.signs) for kind in DEVICE_KINDS)]
    for kind, signs in rows:
        steps = "<br>".join(kind.suggestions)
        ends = "the worker process" if kind.ends_process else "the task"
        text += f"| `{kind.code}` | {', '.join(f'`{sign}`' for sign in signs)} | {ends} | {steps} |\n"
    return text + "\n"


def _actions() -> str:
    """Return the table of the actions."""
    from backend.core.errors.actions import ACTIONS

    text = "\n| action | values | what executes it |\n|---|---|---|\n"
    return text + "".join(f"| `{name}` | {values} | {call} |\n" for name, (values, call) in ACTIONS.items()) + "\n"


def main() -> None:
    """Write every derived document."""
    written = (
        (ARCHITECTURE, architecture()),
        (FILES, file_list()),
        (SCHEMA, schema()),
        (MESSAGES, messages()),
        (TROUBLESHOOTING, troubleshooting()),
        (SETTINGS, settings()),
    )
    for path, text in written:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
