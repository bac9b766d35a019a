"""The operator's limits decide when a worker reports that memory is filling up. Real worker, real model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.core.config.file import ConfigFile
from backend.core.domain import TaskStatus
from backend.core.planning.memory_level import stored_limits
from backend.worker.supervisor import as_environment
from tests.worker.conftest import Queue

pytestmark = pytest.mark.timeout(900)


def test_limits_set_while_a_worker_runs_apply_to_its_next_video(queue: Queue) -> None:
    def warnings() -> tuple[str, ...]:
        task = queue.submit()
        queue.wait_status(task.id, TaskStatus.COMPLETED)
        return queue.outputs.get(task.id).warnings

    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.worker.programs.small_memory", "small"],
        stdin=subprocess.PIPE,
        env=os.environ | as_environment(queue.settings),
    )
    try:
        assert warnings() == (), "it takes more than a tenth of the memory, and less than three quarters"
        stored_limits(ConfigFile(queue.home.config_file)).change({"ram_warning_threshold": 0.1})
        (told,) = warnings()
        assert told.startswith("The memory that this worker may use is ")
        assert "of 4.0 GiB" in told
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdin is not None
        worker.stdin.close()
