"""Recognises a weight file: a transformer, an autoencoder, an encoder or a LoRA, and of which model.

Decides by the structure of its tensors; files with the same structure (the two experts, Wan2.1) are distinguished by a
known SHA-256 or by name. If neither decides, the result is "ambiguous", never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.table import MODELS
from backend.core.files import decode_json
from backend.core.formats.tensors import UnreadableWeights, UnsupportedWeights
from backend.core.formats.weights import SHARD_INDEX, WEIGHT_SUFFIXES, read_weights
from backend.core.lora.experts import hint_of
from backend.models.adoption.structure import FIRST_VAE, Identity, Kind, Recognised, by_structure
from backend.models.folder.integrity import digest_of

#: Published files by SHA-256 with their size: Comfy-Org's repositories Wan_2.1_ComfyUI_repackaged and
#: Wan_2.2_ComfyUI_Repackaged on the hub.
KNOWN_FILES: Final[dict[str, tuple[int, str]]] = {
    "6122e79d55e0f235698d11d657f3b196c5273c830da00b2b013c5a048d5e6a42": (14_294_742_832, "I2V-A14B high noise"),
    "5471a457b6ac404202a5fbe6c11595a3d5641fc766b00f38763f72303fffc21e": (14_294_742_832, "I2V-A14B low noise"),
    "456f901338bd9eadbded3828b819109a9b68e8a525ca5cf8d0049a69fcfeca1e": (9_999_658_848, "TI2V-5B"),
    "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b": (253_815_318, FIRST_VAE),
    "e40321bd36b9709991dae2530eb4ac303dd168276980d3e9bc4b6e2b75fed156": (1_409_400_960, "Wan2.2 VAE"),
    "c3355d30191f1f066b26d93fba017ae9809dce6c627dda5f6a66eaa651204f68": (6_735_906_897, "UMT5-XXL"),
}

_CLASS_OF_QWEN, _CLASS_OF_WAN = "AutoencoderKLQwenImage", "AutoencoderKLWan"
#: Folders in diffusers' layout, for models with two experts.
_EXPERT_FOLDERS: Final = {"transformer": HIGH, "transformer_2": LOW}
_UNDECIDED = "Neither its name nor its tensors say which of these it is"
_RELEASE_1 = re.compile(r"(?<![0-9])2[ ._-]?1(?![0-9])")
_RELEASE_2 = re.compile(r"(?<![0-9])2[ ._-]?2(?![0-9])|a14b", re.IGNORECASE)
#: Related models with the structure of T2V or I2V, and their file name patterns.
_RELATIVES = re.compile(r"fun|inp|inpaint|control|camera|vace|animate|s2v|humo|phantom", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+(?:2[vV])?")
#: Path parts in the Hugging Face cache that are not names and may contain any digits.
_REVISION = re.compile(r"snapshots|[0-9a-f]{40}|[0-9a-f]{64}")
#: Prefix of the previous generation's identities; it has one transformer where Wan2.2 has two of that structure.
_OLDER: Final = "Wan2.1"
#: Name patterns of distilled weights; files without them are the original weights.
_DISTILLED: Final = "fastwan"
#: Name suffixes of models of one structure trained for different sizes.
_TRAINED_FOR = re.compile(r"(?:480|720)p$", re.IGNORECASE)
_T2V_NAME = re.compile(r"t2v|text[ _-]?(?:2|to)[ _-]?video", re.IGNORECASE)
_I2V_NAME = re.compile(r"i2v|image[ _-]?(?:2|to)[ _-]?video", re.IGNORECASE)


def recognise(path: Path, *, sha256: str | None = None, digest: Callable[[Path], str | None] = digest_of) -> Recognised:
    """Recognise a weight file, or the index of its shards; tensors are not read.

    `sha256` is the file's digest if known without reading it. If a known digest could resolve a remaining ambiguity,
    `digest` reads the file.
    """
    try:
        header = read_weights(path)
    except UnreadableWeights as error:
        kind = Kind.UNSUPPORTED if isinstance(error, UnsupportedWeights) else Kind.REFUSED
        return Recognised(path, kind, _size(path), note=str(error))
    return _settled(by_structure(path, header), sha256, digest)


def _settled(found: Recognised, sha256: str | None, digest: Callable[[Path], str | None]) -> Recognised:
    """Choose among the identities that the structure allows: by a known digest, else by name."""
    known = _known(found, sha256)
    if known is not None:
        return known
    if found.kind is Kind.TRANSFORMER:
        identities, note = _by_name(found.path, found.identities)
    elif found.kind is Kind.VAE:
        identities, note = _vae_by_name(found.path, found.identities)
    else:
        return found
    named = replace(found, identities=identities, note=note)
    if named.ambiguous and sha256 is None and any(found.size == size for size, _ in KNOWN_FILES.values()):
        return _known(found, digest(found.path)) or named
    return named


def _known(found: Recognised, sha256: str | None) -> Recognised | None:
    _, name = KNOWN_FILES.get(sha256 or "", (0, None))
    known = tuple(identity for identity in found.identities if identity.name == name)
    return replace(found, identities=known, note="") if known else None


def _by_name(path: Path, identities: tuple[Identity, ...]) -> tuple[tuple[Identity, ...], str]:
    """Keep the identities that agree with the names of the file and its folder."""
    called = _called(path)
    if any(use.model in MODELS and not MODELS[use.model].embedded for it in identities for use in it.uses):
        words = {word.lower() for word in _WORD.findall(called)}
        relative = next((word for word in sorted(words) if _RELATIVES.fullmatch(word)), None)
        if relative is not None:
            return (), f"Its name says that it is a variant of Wan2.2 ({relative}) that is not supported"
    if _contradicts(called, identities):
        return (), "Its name and its tensors disagree about the kind of model"
    distilled = _DISTILLED in called.lower()
    identities = tuple(it for it in identities if (_DISTILLED in it.name.lower()) == distilled) or identities
    ends = {identity: match[0].lower() for identity in identities if (match := _TRAINED_FOR.search(identity.name))}
    identities = tuple(one for one, end in ends.items() if end in called.lower()) or identities
    if len(identities) == 1:
        return identities, ""
    first, second = bool(_RELEASE_1.search(called)), bool(_RELEASE_2.search(called))
    expert = _expert(path)
    older = tuple(identity for identity in identities if identity.name.startswith(_OLDER))
    if older and first and not second and expert is None:
        return older, _UNDECIDED if len(older) > 1 else ""
    if not first and (second or expert is not None):
        identities = tuple(identity for identity in identities if identity not in older) or identities
    if expert is not None and (second or not first):
        identities = tuple(identity for identity in identities if f" {expert} " in f"{identity.name} ") or identities
    if len(identities) > 1:
        return identities, _UNDECIDED
    return identities, ""


def _called(path: Path) -> str:
    """Return the meaningful names: the file, its folder and the one above, or the repository in a cache."""
    return "/".join([part for part in path.parts if not _REVISION.fullmatch(part)][-3:])


def _contradicts(called: str, identities: tuple[Identity, ...]) -> bool:
    """Whether the name says T2V but the input is that of I2V, or vice versa."""
    modes = {MODELS[use.model].mode.value for identity in identities for use in identity.uses if use.model in MODELS}
    text, image = bool(_T2V_NAME.search(called)), bool(_I2V_NAME.search(called))
    return (modes == {"i2v"} and text and not image) or (modes == {"t2v"} and image and not text)


def _expert(path: Path) -> str | None:
    """Return the expert named by the file, else by its folder."""
    if path.parent.name in _EXPERT_FOLDERS and (path.parent.parent / "transformer_2").is_dir():
        return _EXPERT_FOLDERS[path.parent.name]
    ending = next((end for end in (SHARD_INDEX, *WEIGHT_SUFFIXES) if path.name.endswith(end)), "")
    for name in (path.name.removesuffix(ending), path.parent.name):
        hint = hint_of(name)
        if hint is not None and hint.certain:
            return hint.expert
    return None


def _vae_by_name(path: Path, identities: tuple[Identity, ...]) -> tuple[tuple[Identity, ...], str]:
    """Distinguish Wan2.1's autoencoder from Qwen-Image's, which has the same structure but different weights."""
    if len(identities) == 1:
        return identities, ""
    own, other = identities
    try:
        config = decode_json((path.parent / "config.json").read_bytes())
    except (OSError, ValueError):
        config = ""
    if "qwen" in path.name.lower() or _CLASS_OF_QWEN in config:
        return (other,), "Qwen-Image has an autoencoder of this structure with other weights"
    if "wan" in path.name.lower() or _CLASS_OF_WAN in config:
        return (own,), ""
    return identities, _UNDECIDED


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
