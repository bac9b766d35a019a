"""Links in the LoRA folder to files that other programs keep, and the rule for links that may leave the folder.

A hard link is an ordinary file of the folder. A symbolic link is followed only if section `loras` of config.json
records its target, so a link created by anyone else is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backend.core.config.file import ConfigFile
from backend.core.errors.surroundings import BadSettings
from backend.core.files import storage_errors
from backend.core.paths import Home
from backend.models.download.linking import Link, link_file
from backend.models.lora.upload import Received, discard_dangling, place_of, same_or_refuse

SECTION: Final = "loras"
_LINKED: Final = "linked"  # in the section: name in the folder -> where its file is


class LoraLinks:
    """The links in the folder of LoRAs of one home folder."""

    def __init__(self, home: Home) -> None:
        self._folder = home.loras
        self._config = ConfigFile(home.config_file)

    def take(self, source: Path, name: str, sha256: str) -> Received:
        """Link a checked file into the folder under `name`; the file itself is not touched.

        Raises:
            LoraExists: another file has this name.
            StorageFull: the disk is full.
            BadSettings: config.json cannot be written; nothing was linked.
        """
        target = place_of(self._folder, name)
        with storage_errors():
            discard_dangling(target)
            try:
                link = link_file(source, target)
            except FileExistsError:
                same_or_refuse(target, sha256)
                return Received(target, sha256, new=False)
        if link is Link.SYMBOLIC:
            try:
                self._note(target.name, str(target.resolve()))
            except BaseException:
                target.unlink()
                raise
        return Received(target, sha256, new=True)

    def followed(self, path: Path) -> bool:
        """Whether a link was made by this class and still has its recorded target."""
        try:
            linked = self._config.section(SECTION).get(_LINKED)
        except BadSettings:
            return False
        return isinstance(linked, dict) and linked.get(path.name) == str(path.resolve())

    def remove(self, path: Path) -> None:
        """Delete a file or link from the folder; a link's target stays."""
        linked = path.is_symlink()
        path.unlink(missing_ok=True)
        if linked:
            self._note(path.name, None)

    def _note(self, name: str, target: str | None) -> None:
        def changed(section: dict[str, object]) -> dict[str, object]:
            before = section.get(_LINKED)
            linked = {key: value for key, value in before.items() if key != name} if isinstance(before, dict) else {}
            return {**section, _LINKED: linked if target is None else {**linked, name: target}}

        self._config.update(SECTION, changed)
