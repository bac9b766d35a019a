"""What is ignored in config.json: unknown sections, unusable keys and entries, repeated keys.

The one place that knows every section; their owners judge the content. Changes nothing.
"""

from __future__ import annotations

from typing import Final

from backend.core.config.download_limit import SECTION as DOWNLOADS
from backend.core.config.download_limit import stored_downloads
from backend.core.config.file import ConfigFile
from backend.core.config.generation_policy import SECTION as GENERATION
from backend.core.config.generation_policy import stored_policy
from backend.core.config.giving_way import SECTION as GIVE_WAY
from backend.core.config.giving_way import stored_giving_way
from backend.core.config.schedule import SECTION as SCHEDULE
from backend.core.config.schedule import stored_schedule
from backend.core.config.webhooks import SECTION as WEBHOOKS
from backend.core.config.webhooks import stored_webhooks
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.plain_words import printable, unknown_name
from backend.core.planning.constraints import SECTION as OPTIMIZATION
from backend.core.planning.constraints import stored_optimization
from backend.core.planning.memory_level import SECTION as CONSTRAINTS
from backend.core.planning.memory_level import stored_limits
from backend.models.lora.links import SECTION as LORAS
from backend.models.own.configuration import SECTION as MODELS
from backend.models.own.configuration import table_of

_SECTIONS: Final = (MODELS, OPTIMIZATION, CONSTRAINTS, DOWNLOADS, LORAS, GENERATION, SCHEDULE, GIVE_WAY, WEBHOOKS)


def configuration_faults(home: Home) -> list[str]:
    """Return a sentence about everything in this home's config.json that has no effect, with its place."""
    file = ConfigFile(home.config_file)
    try:
        sections = file.sections()
    except BadSettings as error:
        return [f"{error.message}; the defaults are in force"]
    faults = [
        printable(f"{file.place(name)}: `{name}` {unknown_name(name, _SECTIONS, 'section')}")
        for name in sections
        if name not in _SECTIONS
    ]
    faults += [printable(f"{place}: `{name}` is ignored: it occurs again below") for place, name in file.repeated()]
    faults += [*stored_optimization(file).faults(), *stored_limits(file).faults(), *stored_downloads(file).faults()]
    faults += [*stored_policy(file).faults(), *stored_schedule(file).faults(), *stored_giving_way(file).faults()]
    faults += stored_webhooks(file).faults()
    try:
        faults += table_of(file.section(MODELS), file.place).faults
        file.section(LORAS)
    except BadSettings as error:
        faults.append(f"{error.message}; it is ignored")
    return faults
