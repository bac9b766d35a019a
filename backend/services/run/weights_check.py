"""Compares the weights that a run computes with against the manifest: a byte that flipped on disk is not silent.

The digests are computed beside the first steps anyway, for the record. A changed file goes to the quarantine, and the
next task that needs the model downloads it again.
"""

from __future__ import annotations

import structlog

from backend.core.paths import Home
from backend.engine.loading.pipeline_loader import WanComponents
from backend.models.folder.integrity import digest_of, is_ours, put_away
from backend.models.folder.manifest import FileRecord, read_manifest

log = structlog.get_logger(__name__)


def changed_files(components: WanComponents) -> dict[str, FileRecord]:
    """Return the weight files that were not read as they were verified, with their entries in the manifest."""
    manifest = read_manifest(components.folder)
    if manifest is None:  # a folder from elsewhere: there is nothing to compare with
        return {}
    found = components.digest.of_files
    return {name: one for name, one in manifest.files.items() if found.get(name, one.sha256) != one.sha256}


def in_words(components: WanComponents, names: list[str]) -> str:
    """Say what the changed files mean for a clip."""
    replaced = is_ours(components.spec, components.folder)
    remedy = "is replaced before the next one" if replaced else "has to be replaced by whoever keeps it"
    return (
        f"{', '.join(names)} of {components.spec.id} has changed since it was verified: "
        f"the picture may be wrong, and the file {remedy}"
    )


def put_changed_away(home: Home, components: WanComponents, changed: dict[str, FileRecord]) -> None:
    """Read each changed file once more, and move it to the quarantine if it is still different and in this home."""
    for name, record in changed.items():
        model = components.spec.id
        if digest_of(components.folder / name) == record.sha256:  # not the disk, then, but what lies before it
            log.warning("weights.misread", model=model, file=name)
        elif not is_ours(components.spec, components.folder):
            log.error("weights.changed", model=model, file=name, folder=str(components.folder))
        elif put_away(home, components.spec, components.folder, name, record):
            log.error("weights.quarantined", model=model, file=name)
