"""A process that asks for the T2V-A14B model of a home folder, in as many threads as it is told."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.folder.manager import ModelManager


def ask(home: Home) -> Path:
    """Ask once, with a downloader of its own; the hub is the one of HF_ENDPOINT."""
    return ModelDownloader(home, ModelManager(home, has_gpu=False), Hub()).download(MODELS["T2V-A14B"])


if __name__ == "__main__":
    threads = int(sys.argv[2])
    with ThreadPoolExecutor(threads) as pool:
        folders = set(pool.map(lambda _: ask(Home(Path(sys.argv[1]))), range(threads)))
    sys.stdout.write(" ".join(map(str, folders)))
