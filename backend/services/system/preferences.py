"""Preferences, policies and feature flags of the earlier application, as far as settings of this one stand behind them.

Nothing is stored under their names: what has a counterpart is read from and written to config.json through the bridge,
what is fixed here is shown and cannot be changed, and everything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.core.configuration_bridge import ConfigurationBridge
from backend.core.errors.lookups import StateConflict
from backend.core.errors.requests import InvalidRequest
from backend.core.plain_words import nearest, printable
from backend.core.requests.forms import OnModelFailure
from backend.models.download.retries import PATIENT
from backend.models.folder.disk import RESERVE_BYTES

_DOWNLOADS, _HEALTH, _FALLBACK = "download_config", "health_monitoring", "fallback_config"
_FAILURE: Final = "generation.on_model_failure"
_AUTO_DOWNLOAD, _AUTO_RECOVERY = "settings.auto_download", "settings.auto_recovery"
_HEALTH_SECONDS, _RECHECK_DAYS = "settings.health_seconds", "settings.recheck_days"
_LIMIT: Final = "downloads.bandwidth_limit_mbps"
#: Automation level -> whether models are downloaded, and recovery actions carried out, by themselves.
_LEVELS: Final = {"manual": (False, False), "semi_automatic": (True, False), "fully_automatic": (True, True)}
_SHOWN: Final = 100

Values = Mapping[str, Any]  #: settings by dotted name, as configured


@dataclass(frozen=True, slots=True)
class Real:
    """A preference with settings behind it."""

    read: Callable[[Values], Any]
    write: Callable[[Any, Values], dict[str, Any]]  #: raises InvalidRequest for an illegal value


@dataclass(frozen=True, slots=True)
class Fixed:
    """What this server always does."""

    value: Any


#: Preferences by dotted name.
Table = dict[str, Real | Fixed]


def _switch(name: str, on: Any, off: Any, is_on: Callable[[Any], bool]) -> Real:
    """A switch over a setting; turned on, the setting keeps its value if that means on already."""

    def write(value: Any, values: Values) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise InvalidRequest("It must be true or false", details={"allowed": [True, False]})
        if not value:
            return {name: off}
        return {} if is_on(values[name]) else {name: on}

    return Real(lambda values: is_on(values[name]), write)


def _same(name: str) -> Real:
    return Real(lambda values: values[name], lambda value, _: {name: value})


def _level(values: Values) -> str | None:
    pair = values[_AUTO_DOWNLOAD], values[_AUTO_RECOVERY]
    return next((level for level, both in _LEVELS.items() if both == pair), None)


def _set_level(value: Any, _: Values) -> dict[str, Any]:
    if not isinstance(value, str) or value not in _LEVELS:
        words = ", ".join(_LEVELS)
        close = nearest(value, _LEVELS) if isinstance(value, str) else None
        raise InvalidRequest(
            f"It must be one of {words}" + ("" if close is None else f"; the nearest one is {close}"),
            details={"allowed": list(_LEVELS), "nearest": close},
        )
    return dict(zip((_AUTO_DOWNLOAD, _AUTO_RECOVERY), _LEVELS[value], strict=True))


def _hours(value: Any, _: Values) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("It must be a number of hours")
    return {_RECHECK_DAYS: value / 24}


_FALLS_BACK: Final = _switch(_FAILURE, OnModelFailure.OTHER_MODEL, OnModelFailure.FAIL, lambda it: it != "fail")
_MOCKS: Final = _switch(_FAILURE, OnModelFailure.MOCK, OnModelFailure.FAIL, lambda it: it == "mock")
_MONITORS: Final = _switch(_HEALTH_SECONDS, 15.0, 0.0, lambda seconds: seconds > 0)

PREFERENCES: Final[Table] = {
    "automation_level": Real(_level, _set_level),
    f"{_DOWNLOADS}.bandwidth_limit_mbps": _same(_LIMIT),
    f"{_DOWNLOADS}.max_retries": Fixed(PATIENT.attempts),
    f"{_DOWNLOADS}.retry_delay_base": Fixed(PATIENT.first_seconds),
    f"{_DOWNLOADS}.max_retry_delay": Fixed(PATIENT.longest_seconds),
    f"{_DOWNLOADS}.max_concurrent_downloads": Fixed(1),
    f"{_DOWNLOADS}.enable_resume": Fixed(True),
    f"{_DOWNLOADS}.enable_pause": Fixed(True),
    f"{_DOWNLOADS}.verify_integrity": Fixed(True),
    f"{_HEALTH}.enabled": _MONITORS,
    f"{_HEALTH}.auto_repair_enabled": _same(_AUTO_RECOVERY),
    f"{_HEALTH}.integrity_check_enabled": _switch(_RECHECK_DAYS, 30.0, 0.0, lambda days: days > 0),
    f"{_HEALTH}.check_interval_hours": Real(lambda values: 24 * values[_RECHECK_DAYS], _hours),
    f"{_FALLBACK}.enabled": _FALLS_BACK,
    f"{_FALLBACK}.fallback_to_mock_enabled": _MOCKS,
    f"{_FALLBACK}.suggest_alternatives": Fixed(True),
    "analytics_config.share_analytics": Fixed(False),
    "update_config.auto_check_updates": Fixed(False),
    "update_config.auto_download_updates": Fixed(False),
    "update_config.auto_install_updates": Fixed(False),
    "notification_config.download_progress": Fixed(True),
    "notification_config.health_alerts": Fixed(True),
    "notification_config.email_notifications": Fixed(False),
    "storage_config.min_free_space_gb": Fixed(RESERVE_BYTES / 1e9),
    "storage_config.auto_cleanup_enabled": Fixed(False),
}
POLICIES: Final[Table] = {
    "allow_external_downloads": _same(_AUTO_DOWNLOAD),
    "allowed_model_sources": Fixed(["huggingface", "local"]),
}
FLAGS: Final[Table] = {
    "enhanced_downloads": Fixed(True),
    "health_monitoring": _MONITORS,
    "intelligent_fallback": _FALLS_BACK,
    "usage_analytics": Fixed(True),
    "auto_updates": Fixed(False),
    "real_time_notifications": Fixed(True),
}
_NO_USERS: Final = "this server has no users of its own"
_NOTHING: Final = "this server has nothing like it"
#: What the earlier application had besides, and why it is not here; `.*` stands for the rest of a group.
NOT_SUPPORTED: Final = {
    f"{_DOWNLOADS}.*": "the transfer chooses it",
    f"{_HEALTH}.*": "the health monitor's thresholds are in `constraints`",
    f"{_FALLBACK}.*": "`generation.on_model_failure` is the whole choice",
    "analytics_config.*": "figures are computed from the finished tasks and stay on this machine",
    "update_config.*": "models stay as they are until they are downloaded again",
    "notification_config.*": "news goes to the WebSocket and to the webhooks of a task",
    "storage_config.*": "nothing is deleted unasked; `wan22 models cleanup` says what could go",
    "preferred_models": "`auto` chooses by the request and by what is installed",
    "blocked_models": _NOTHING,
}
POLICIES_NOT_SUPPORTED: Final = {
    "enforce_storage_limits": _NOTHING,
    "max_user_storage_gb": _NO_USERS,
    "require_approval_for_updates": "there are no automatic updates",
    "max_concurrent_users": _NO_USERS,
    "bandwidth_limit_per_user_mbps": f"{_NO_USERS}; `{_LIMIT}` holds for all downloads",
    "blocked_model_patterns": _NOTHING,
    "security_scan_required": "files that could hold code are never loaded",
    "audit_logging_enabled": "the versions of config.json are always kept",
}
#: What the answers hold besides preferences; ignored where it is sent back.
ANSWER_ONLY: Final = frozenset({"not_supported", "fixed", "at_next_start"})


@dataclass(frozen=True, slots=True)
class Problem:
    """A preference that cannot be taken."""

    name: str
    rule: str
    nearest: Any = None


def configured(bridge: ConfigurationBridge) -> dict[str, Any]:
    """Return every setting with the value that it has, or will have from the next start on."""
    return {one.name: one.value if one.next_value is None else one.next_value for one in bridge.entries()}


def read_group(table: Table, values: Values) -> dict[str, Any]:
    """Return the preferences of a table, nested by their groups; what has no value is left out."""
    shown: dict[str, Any] = {}
    for name, one in table.items():
        value = one.value if isinstance(one, Fixed) else one.read(values)
        group, _, key = name.rpartition(".")
        if name in ("automation_level",) and value is None:
            continue
        (shown.setdefault(group, {}) if group else shown)[key] = value
    return shown


def settings_for(
    table: Table,
    unsupported: Mapping[str, str],
    body: Mapping[str, Any],
    bridge: ConfigurationBridge,
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the settings that a body of preferences asks for, and what of it cannot be taken."""
    values, problems = configured(bridge), []
    wanted: dict[str, Any] = {}
    definitions = bridge.definitions()
    for name, value in _leaves(body, table):
        one = table.get(name)
        if one is None:
            problems.append(_unknown(name, table, unsupported))
            continue
        if isinstance(one, Fixed):
            if value != one.value or isinstance(value, bool) is not isinstance(one.value, bool):
                problems.append(Problem(name, "is fixed in this server", one.value))
            continue
        try:
            for target, stored in one.write(value, values).items():
                definitions[target].rule.check(name, stored)
                if target in wanted and wanted[target] != stored:
                    problems.append(Problem(name, "contradicts another one in the same body"))
                wanted[target] = stored
        except InvalidRequest as refusal:
            details = refusal.details if isinstance(refusal.details, dict) else {}
            near = details.get("nearest")
            problems.append(Problem(name, refusal.message.removeprefix(f"{name} ").replace("It must", "must"), near))
    return {name: value for name, value in wanted.items() if value != values[name]}, problems


def refuse_problems(problems: list[Problem]) -> None:
    """Raise InvalidRequest about the first problem, with all of them in its details."""
    if problems:
        one = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidRequest(
            printable(f"{one.name} {one.rule}{more}"),
            details=[
                {"loc": ["body", *each.name.split(".")], "msg": each.rule, "type": "value_error"} for each in problems
            ],
            suggestions=("GET the same address: it shows what can be set, and what is fixed; nothing was changed.",),
        )


def refuse_overruled(bridge: ConfigurationBridge, names: Mapping[str, Any]) -> None:
    """Refuse a change that would have no effect, because the environment or the command line is above the file.

    Raises:
        StateConflict: a setting is overruled.
    """
    for entry in bridge.entries():
        if entry.name in names and entry.source in ("environment", "command line"):
            raise StateConflict(
                f"{entry.name} is set by the {entry.source}, which is above config.json; nothing was changed",
                suggestions=("Start the server without it.",),
            )


def _leaves(body: Mapping[str, Any], table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    groups = {name.partition(".")[0] for name in table if "." in name}
    found: list[tuple[str, Any]] = []
    for name, value in body.items():
        if name in groups and isinstance(value, Mapping):
            found += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif name not in ANSWER_ONLY:
            found.append((name, value))
    return found


def _unknown(name: str, table: Mapping[str, Any], unsupported: Mapping[str, str]) -> Problem:
    reason = unsupported.get(name) or unsupported.get(f"{name.partition('.')[0]}.*")
    if reason is not None:
        return Problem(name[:_SHOWN], f"is not supported: {reason}")
    return Problem(name[:_SHOWN], "is not a known name", nearest(name, table))
