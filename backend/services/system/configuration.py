"""The configuration of a home folder with the sections that models and LoRAs own.

The one place that knows every section; their owners judge the content.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from backend.core.config.content import without_password
from backend.core.config.file import ConfigFile
from backend.core.config.places import Keys
from backend.core.configuration_bridge import ConfigurationBridge
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.settings import SECTION as SETTINGS
from backend.core.settings import Settings
from backend.models.lora.links import SECTION as LORAS
from backend.models.own.configuration import SECTION as MODELS
from backend.models.own.configuration import ignored_in


class _Models:
    """Section `models`: the user's own models and defaults."""

    name = MODELS

    def faults(self, section: dict[str, Any]) -> list[tuple[Keys, str]]:
        return ignored_in(section)


class _Loras:
    """Section `loras`: what `wan22 loras add` has linked."""

    name = LORAS

    def faults(self, section: dict[str, Any]) -> list[tuple[Keys, str]]:
        del section  # written by programs alone
        return []


def configuration_of(home: Home, running: Settings | None = None) -> ConfigurationBridge:
    """Return the configuration of a home folder; `running` are the operator's settings of this process."""
    return configuration_in(ConfigFile(home.config_file), running)


def configuration_in(file: ConfigFile, running: Settings | None = None) -> ConfigurationBridge:
    """Return the configuration in a file."""
    return ConfigurationBridge(file, running, (_Models(), _Loras()))


def configuration_faults(home: Home) -> list[str]:
    """Return a sentence about everything in this home's config.json that has no effect, with its place."""
    bridge = configuration_of(home)
    sentences = [fault.sentence for fault in bridge.faults()]
    with suppress(BadSettings):
        older = bridge.older().settings
        if older:
            sentences.append(
                f"{home.config_file.name} has settings of the earlier application ({len(older)}); "
                "`wan22 config migrate` says what each stands for, and gives it its name of today"
            )
    if _tells_a_password(bridge.file):
        sentences.append(
            f"{home.config_file.name} holds a password and can be read by other users of this machine; "
            f"`chmod 600 {home.config_file}` keeps them out"
        )
    return sentences


def _tells_a_password(file: ConfigFile) -> bool:
    """Whether others than the owner can read a URL with a password."""
    url = file.running().values.get(SETTINGS, {})
    url = url.get("database_url") if isinstance(url, dict) else None
    try:
        return without_password(url) != url and bool(file.path.stat().st_mode & 0o044)
    except OSError:
        return False
