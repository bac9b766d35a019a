"""What routes are given: the services of this process, and the ids in their paths.

Clients name tasks and outputs by id only, and an id that cannot be one is not found.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path, Request

from backend.core.errors import OutputNotFound, TaskNotFound
from backend.services.system.container import Services

_ID = re.compile(r"^[A-Za-z0-9-]{1,64}$")


def services_of(request: Request) -> Services:
    """Return the services of the app that serves this request, with the model table as config.json defines it now.

    Not async: reading config.json takes a lock and the disk, so it belongs to a thread.
    """
    services: Services = request.app.state.services
    services.configuration.refresh()
    return services


async def task_in_path(task_id: Annotated[str, Path(description="Id of the task")]) -> str:
    """Return the path's task id if it can be one.

    Raises:
        TaskNotFound: it cannot.
    """
    if not _ID.match(task_id):
        raise TaskNotFound
    return task_id


async def output_in_path(output_id: Annotated[str, Path(description="Id of the video, which is its task's id")]) -> str:
    """Return the path's output id if it can be one.

    Raises:
        OutputNotFound: it cannot.
    """
    if not _ID.match(output_id):
        raise OutputNotFound
    return output_id


ServicesDep = Annotated[Services, Depends(services_of)]
TaskId = Annotated[str, Depends(task_in_path)]
OutputId = Annotated[str, Depends(output_in_path)]
