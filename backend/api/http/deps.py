"""Dependencies of routes: the services of this process and the ids in paths.

Clients refer to tasks and outputs by id only; a malformed id is reported as not found.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path, Request

from backend.core.errors.lookups import OutputNotFound, TaskNotFound
from backend.services.system.container import Services

_ID = re.compile(r"^[A-Za-z0-9-]{1,64}$")


def services_of(request: Request) -> Services:
    """Return the app's services, with the model table refreshed from config.json.

    Not async: reading config.json takes a lock and disk I/O, so it must run in a thread.
    """
    services: Services = request.app.state.services
    services.configuration.refresh()
    return services


async def task_in_path(task_id: Annotated[str, Path(description="Id of the task")]) -> str:
    """Return the task id from the path.

    Raises:
        TaskNotFound: the id is malformed.
    """
    if not _ID.match(task_id):
        raise TaskNotFound
    return task_id


async def output_in_path(output_id: Annotated[str, Path(description="Id of the video, which is its task's id")]) -> str:
    """Return the output id from the path.

    Raises:
        OutputNotFound: the id is malformed.
    """
    if not _ID.match(output_id):
        raise OutputNotFound
    return output_id


ServicesDep = Annotated[Services, Depends(services_of)]
TaskId = Annotated[str, Depends(task_in_path)]
OutputId = Annotated[str, Depends(output_in_path)]
