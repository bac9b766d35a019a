"""Runs one attempt in a separate process: `python -m tests.services.attempt_process HOME FOLDER TASK < request`.

Prints the output's record as JSON. With WAN22_FAULTS it dies where a test wants it to; TEST_STATE_SECONDS is
the longest denoising without a saved state.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from backend.core.catalogue.table import ModelSpec
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.services.real_generation_pipeline import STATE_SECONDS, RealGenerationPipeline, RunOptions


class FixedFolder:
    """A model collection that returns the same folder for every model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, spec: ModelSpec) -> Path:
        return self._folder


def build_pipeline(home: Home, folder: Path, state_seconds: float = STATE_SECONDS) -> RealGenerationPipeline:
    bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(
        FixedFolder(folder), WanPipelineLoader("cpu")
    )
    return RealGenerationPipeline(bridge, home, RunOptions(state_seconds=state_seconds))


def main() -> None:
    home, folder, task_id = Home(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
    request = GenerationRequest.from_json(json.load(sys.stdin))
    state_seconds = float(os.environ.get("TEST_STATE_SECONDS", STATE_SECONDS))
    output = build_pipeline(home, folder, state_seconds).generate(task_id, request, report=lambda progress: None)
    json.dump(output.metadata, sys.stdout)


if __name__ == "__main__":
    main()
