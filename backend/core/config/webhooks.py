"""The addresses that are told what becomes of every task: section `webhooks` of config.json.

`{"webhooks": {"every_task": [{"url": "https://…", "events": ["task.failed"]}]}}`; without events, the three endings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names
from backend.core.domain import ENDINGS, MessageType
from backend.core.errors.requests import InvalidRequest
from backend.core.requests.forms import Webhook

SECTION: Final = "webhooks"
_FIELD: Final = "every_task"
#: Most addresses that are told of every task.
MOST: Final = 4


@dataclass(frozen=True, slots=True)
class ServerWebhooks:
    """The stored webhooks."""

    every_task: tuple[Webhook, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {_FIELD: [{"url": one.url, "events": list(one.events)} for one in self.every_task]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ServerWebhooks:
        """Build them from JSON values.

        Raises:
            InvalidRequest: a name is unknown, or a value has another form.
        """
        check_names(values, [_FIELD], "setting")
        hooks = values.get(_FIELD) or []
        if not isinstance(hooks, list) or len(hooks) > MOST:
            raise InvalidRequest(f"{_FIELD} must be a list of at most {MOST} webhooks", details={"field": _FIELD})
        return cls(tuple(map(_hook, hooks)))


def _hook(value: object) -> Webhook:
    hook = value if isinstance(value, dict) else {}
    url, events = hook.get("url"), hook.get("events", list(ENDINGS))
    known = isinstance(events, list) and events and all(one in list(MessageType) for one in events)
    if not isinstance(url, str) or not known or hook.keys() - {"url", "events"}:
        raise InvalidRequest(
            f"each of {_FIELD} has a url and, if it likes, events: {', '.join(MessageType)}", details={"field": _FIELD}
        )
    return Webhook(url, tuple(map(MessageType, events)))


def stored_webhooks(file: ConfigFile) -> StoredSection[ServerWebhooks]:
    """Return the webhooks stored in this file."""
    return StoredSection(file, SECTION, ServerWebhooks.from_json)
