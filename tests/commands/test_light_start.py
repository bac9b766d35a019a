"""The command line and the web process start without the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "tokenizers", "av"}


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=240)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["doctor", "--offline"]], ids=" ".join)
def test_commands_do_not_import_heavy_libraries(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['wan22', *{arguments!r}]\n"
        "from backend.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
    )
    assert _modules_after(code) & HEAVY == set()


def test_web_process_does_not_import_heavy_libraries() -> None:
    loaded = _modules_after(
        "import backend.server, backend.app\nfrom backend.core.settings import load_settings\n"
        "backend.app.create_app(load_settings())"
    )
    assert loaded & HEAVY == set()
    assert not any(name.startswith("backend.engine") for name in loaded)
