"""One log for the whole process: structlog over the standard library, to stderr or to a bounded file.

Context (task id, attempt, worker id) is bound where it is known. Tracebacks never show local variables,
because locals hold keys and prompts.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog

from backend.core.log_file import BoundedLogFile
from backend.core.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Send every record of this process, also the libraries', through one formatter."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(
            colors=settings.log_file is None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.log_file is not None:
        # A name alone stands for a file in the home's folder of logs.
        path = settings.paths.logs / os.path.expanduser(settings.log_file)  # noqa: PTH111 - never raises
        limit = int(settings.log_max_mb * 1e6)
        handler = BoundedLogFile(path, max_bytes=limit, generations=settings.log_generations)
    finish: list[structlog.types.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_json:
        finish.append(structlog.processors.format_exc_info)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*finish, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx2", "filelock", "huggingface_hub", "alembic", "diffusers", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
