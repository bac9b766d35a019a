"""`--help` of every command: defaults are shown, `-h` works, and programs get JSON."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.commands.support import invoke
from tests.commands.terminal.test_errors import commands

COMMANDS = [(name, command) for name, command in commands() if name]
#: Commands that run until they are stopped, and those that group others.
WITHOUT_JSON = {("serve",), ("worker",), ("models",), ("loras",), ("db",), ("keys",), ("config",), ("webhooks",)}


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[" ".join(name) for name, _ in COMMANDS])
def test_help_is_short_to_ask_for_and_shows_every_default(name: tuple[str, ...], command: Any) -> None:
    long, short = invoke(*name, "--help"), invoke(*name, "-h")
    assert (long.returncode, short.returncode) == (0, 0)
    assert long.stdout == short.stdout
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", long.stdout).split())
    for option in command.params:
        for default in re.findall(r"\[default: [^]]+\]", option.help or ""):
            assert default.split()[-1] in told, (name, option.name)
            assert "[default:" in told
    assert " ." not in told, "a default was taken for markup"
    assert command.help, name


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS if name not in WITHOUT_JSON], ids=" ".join)
def test_every_command_answers_programs(name: tuple[str, ...]) -> None:
    (command,) = [command for one, command in COMMANDS if one == name]
    assert any("--json" in option.opts for option in command.params)


def test_completion_can_be_shown_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    told = invoke("--help").stdout
    assert "--install-completion" in told
    assert "--show-completion" in told
