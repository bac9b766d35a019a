"""Writes what the documents derive from the code: the map of folders, the list of files, the API's schema.

`make docs` runs it; the tests compare what it would write with what is there.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CODE: Final = ("backend", "training", "benchmarks")
ARCHITECTURE: Final = ROOT / "docs" / "architecture.md"
FILES: Final = ROOT / "docs" / "files.md"
SCHEMA: Final = ROOT / "docs" / "openapi.json"
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


def main() -> None:
    """Write every derived document."""
    for path, text in ((ARCHITECTURE, architecture()), (FILES, file_list()), (SCHEMA, schema())):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
