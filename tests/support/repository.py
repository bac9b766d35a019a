"""A repository in the layout of Wan2.2-T2V-A14B-Diffusers with the weights of the embedded tiny model."""

from __future__ import annotations

import json

from safetensors import safe_open
from safetensors.numpy import save

from backend.models.folder.manager import EMBEDDED_MODELS
from tests.support.hub import repository_files

SHARDS = 3
#: Suffixes of the repository files that are never downloaded.
_NEVER = (".bin", ".py", ".png", ".md")


def sharded_repository() -> dict[str, bytes]:
    """Return the tiny T2V model with both experts sharded, plus files that must never be downloaded."""
    files = repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")
    for expert in ("transformer", "transformer_2"):
        whole = f"{expert}/diffusion_pytorch_model.safetensors"
        with safe_open(EMBEDDED_MODELS / "tiny-t2v-a14b" / whole, framework="np") as file:
            names = sorted(file.keys())
            parts = [{name: file.get_tensor(name) for name in names[i::SHARDS]} for i in range(SHARDS)]
        del files[whole]
        shards = {}
        for number, part in enumerate(parts, 1):
            shard = f"diffusion_pytorch_model-{number:05}-of-{SHARDS:05}.safetensors"
            files[f"{expert}/{shard}"] = save(part)
            shards |= dict.fromkeys(part, shard)
        files[f"{whole}.index.json"] = json.dumps({"metadata": {}, "weight_map": shards}).encode()
    files["transformer/diffusion_pytorch_model.bin"] = b"\x80\x04 a pickle"
    files["transformer/run.py"] = b"print('never')"
    files["assets/logo.png"] = b"\x89PNG"
    return files


def needed_files(published: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a repository that the loader needs."""
    return {name: content for name, content in published.items() if not name.endswith(_NEVER)}
