"""Routes and shapes of the configuration: every setting with its source, changes, history, and undo.

Preferences, policies and feature flags of the earlier application are views of the same settings. Every key may read
them, `admin` alone may change them and sees what can only be changed at the machine.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.core.access.caller import Scope, current_caller
from backend.core.config.report import Entry
from backend.core.config.section import ConfigFault
from backend.core.configuration_bridge import refuse_at_the_machine
from backend.core.domain import iso, utcnow
from backend.core.errors.base import WanError
from backend.core.errors.requests import InvalidRequest
from backend.core.plain_words import nearest
from backend.core.planning.constraints import SECTION as OPTIMIZATION
from backend.services.system.container import Services
from backend.services.system.preferences import (
    FLAGS,
    NOT_SUPPORTED,
    POLICIES,
    POLICIES_NOT_SUPPORTED,
    PREFERENCES,
    Fixed,
    Problem,
    Real,
    Table,
    configured,
    read_group,
    refuse_overruled,
    refuse_problems,
    settings_for,
)

router = Routes(prefix="/config", tags=["configuration"])

_VIEWS = {"user-preferences": PREFERENCES, "admin-policies": POLICIES, "feature-flags": FLAGS}
_REFUSED = refusals(
    {
        403: "It can only be changed at the machine itself",
        409: "The environment is above config.json, or there is no such version",
    }
)
_NO_FILE = refusals({409: "The environment is above config.json"})
Flag = Annotated[str, Path(description="A flag, as listed", max_length=64)]


class SettingView(BaseModel):
    """One setting."""

    name: str = Field(description="Section and key")
    value: Any = Field(None, description="In force; null where that is the value")
    default: Any = None
    source: str = Field(description="command line, environment, config.json or default; each is above the next")
    meaning: str
    legal: str = Field(description="The legal values, in words")
    place: str | None = Field(None, description="Where it stands in config.json")
    next_value: Any = Field(None, description="From the next start on")
    at_restart: bool = Field(description="Whether a change takes effect at the next start, not at the next task")
    changeable: bool = Field(description="Whether it can be changed over HTTP")


class Configuration(BaseModel):
    """Every setting."""

    settings: list[SettingView]


class ConfigurationBody(BaseModel):
    """New values by name, all or none; null where a setting allows it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)


class Changed(BaseModel):
    """What is different now."""

    message: str
    changed: list[str] = Field(description="Names of the settings that are different in config.json")
    at_next_start: list[str] = Field(description="Those of them that take effect at the next start")


class VersionView(BaseModel):
    """One version of config.json."""

    number: int
    at: Timestamp
    by: str
    changed: list[str]
    restores: int | None = Field(None, description="The version that an undo put back")


class Versions(BaseModel):
    """The versions of config.json, the newest first."""

    versions: list[VersionView]


class UndoBody(BaseModel, extra="forbid"):
    """The version to go back to; without one, the one before the present."""

    version: int | None = Field(None, ge=1, le=10**9)


class FaultView(BaseModel):
    """Something in config.json, or in a body, that cannot be used."""

    name: str
    rule: str
    line: int | None = None
    column: int | None = None
    nearest: Any = Field(None, description="The nearest legal value, or the name that was meant")
    message: str


class ConfigurationStatus(BaseModel):
    """The state of config.json."""

    valid: bool
    in_force: str = Field(description="`present`, or `last readable` while the file is broken")
    faults: list[FaultView]
    earlier_application: list[str] = Field(description="What stands for its settings; `wan22 config migrate` renames")
    at_next_start: list[str] = Field(description="Settings whose new value waits for a start of the server")
    overruled: list[str] = Field(description="Settings above which the environment or the command line stands")
    edited_by_hand: bool = Field(description="Whether the file was edited since its newest version")
    version: int | None = Field(None, description="The newest version of the file")
    changed_at: Timestamp | None = None
    changed_by: str | None = None
    timestamp: Timestamp


class Preferences(BaseModel):
    """Preferences or policies by group, and what has no counterpart here."""

    model_config = ConfigDict(extra="allow")
    fixed: list[str] = Field(description="What this server always does, and cannot be changed")
    not_supported: dict[str, str] = Field(
        description="What the earlier application had besides, and why it is not here"
    )
    at_next_start: list[str] = Field(description="Settings behind them whose value waits for a start of the server")


class PreferencesBody(BaseModel):
    """The preferences or policies to change, by group; what is left out stays."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)


class FlagView(BaseModel):
    """A feature flag."""

    enabled: bool
    changeable: bool


class Flags(BaseModel):
    """The feature flags."""

    flags: dict[str, FlagView]
    at_next_start: list[str]


class BodyCheck(BaseModel):
    """Whether a body would be accepted; nothing was changed."""

    valid: bool
    errors: list[FaultView]
    changes: dict[str, Any] = Field(description="The settings that would be written, by name")


@router.get("", response_model_exclude_none=False, summary="Every setting, with its source")
def configuration(services: ServicesDep) -> Configuration:
    """List every setting: the value in force, its default, its source, and what it means. Passwords are masked.

    Settings that can only be changed at the machine, such as addresses and folders, are listed for `admin` alone.
    """
    entries, is_operator = services.config.entries(), current_caller().may(Scope.ADMIN)
    return Configuration(settings=[_setting(one) for one in entries if one.over_http or is_operator])


@router.patch("", summary="Change settings", responses=_REFUSED)
def change_configuration(body: ConfigurationBody, services: ServicesDep) -> Changed:
    """Change settings, all or none: `{"optimization.vae_tile_size": 384}`.

    They take effect from the next task on, those of section `settings` at the next start, and are kept. What decides
    who can reach the server is changed at the machine alone.
    """
    return _change(services, body.__pydantic_extra__)


@router.get("/history", summary="Versions of config.json")
def history(services: ServicesDep) -> Versions:
    """List the versions of config.json with the names of the keys that each changed.

    An edit by hand becomes a version with the next change; until then `configuration-status` says `edited_by_hand`.
    """
    return Versions(
        versions=[
            VersionView(number=one.number, at=one.at, by=one.by, changed=list(one.changed), restores=one.restores)
            for one in services.config.versions()
        ]
    )


@router.post("/undo", summary="Take the last change back", responses=_REFUSED)
def undo(body: UndoBody, services: ServicesDep) -> Changed:
    """Put the version before the present one back, or a numbered one; again for the one before."""
    back, changed = services.config.undo(body.version, over_http=True)
    return _changed(services, changed, f"Version {back.number} is back")


@router.get("/configuration-status", summary="State of config.json")
def configuration_status(services: ServicesDep) -> ConfigurationStatus:
    """Return what in config.json has no effect, with line and column, and which values wait for a start."""
    bridge = services.config
    faults, entries = bridge.faults(), bridge.entries()
    broken = bool(faults) and not faults[0].keys
    newest = next(iter(bridge.versions()), None)
    return ConfigurationStatus(
        valid=not faults,
        in_force="last readable" if broken else "present",
        faults=[_fault(one) for one in faults],
        earlier_application=[] if broken else [one.sentence for one in bridge.older().settings],
        at_next_start=[one.name for one in entries if one.next_value is not None],
        overruled=[one.name for one in entries if one.position and one.source in ("environment", "command line")],
        edited_by_hand=bridge.edited,
        version=None if newest is None else newest.number,
        changed_at=None if newest is None else newest.at,
        changed_by=None if newest is None else newest.by,
        timestamp=iso(utcnow()),
    )


@router.get("/user-preferences", response_model_exclude_none=False, summary="Preferences")
def user_preferences(services: ServicesDep) -> Preferences:
    """Return the preferences of the earlier application behind which this server has settings, or a fixed answer."""
    return _preferences(services, PREFERENCES, NOT_SUPPORTED)


@router.put("/user-preferences", summary="Change preferences", responses=_NO_FILE)
def change_preferences(body: PreferencesBody, services: ServicesDep) -> Changed:
    """Change preferences, all or none; one without a counterpart is refused by name."""
    return _apply(services, PREFERENCES, NOT_SUPPORTED, body.__pydantic_extra__)


@router.get("/admin-policies", response_model_exclude_none=False, summary="Policies")
def admin_policies(services: ServicesDep) -> Preferences:
    """Return the policies of the earlier application behind which this server has settings, or a fixed answer."""
    return _preferences(services, POLICIES, POLICIES_NOT_SUPPORTED)


@router.put("/admin-policies", summary="Change policies", responses=_NO_FILE)
def change_policies(body: PreferencesBody, services: ServicesDep) -> Changed:
    """Change policies, all or none; one without a counterpart is refused by name."""
    return _apply(services, POLICIES, POLICIES_NOT_SUPPORTED, body.__pydantic_extra__)


@router.post("/validate-preferences", response_model_exclude_none=False, summary="Check preferences")
def validate_preferences(body: PreferencesBody, services: ServicesDep) -> BodyCheck:
    """Return what is wrong with preferences, and what they would change. Changes nothing."""
    return _verdict(services, PREFERENCES, NOT_SUPPORTED, body.__pydantic_extra__)


@router.post("/validate-policies", response_model_exclude_none=False, summary="Check policies")
def validate_policies(body: PreferencesBody, services: ServicesDep) -> BodyCheck:
    """Return what is wrong with policies, and what they would change. Changes nothing."""
    return _verdict(services, POLICIES, POLICIES_NOT_SUPPORTED, body.__pydantic_extra__)


@router.get("/feature-flags", summary="Feature flags")
def feature_flags(services: ServicesDep) -> Flags:
    """Return what the feature flags of the earlier application stand for here."""
    return Flags(
        flags={
            name: FlagView(enabled=enabled, changeable=isinstance(FLAGS[name], Real))
            for name, enabled in read_group(FLAGS, configured(services.config)).items()
        },
        at_next_start=_waiting(services),
    )


@router.put("/feature-flags/{flag}", summary="Switch a feature", responses=_NO_FILE)
def change_flag(
    flag: Flag,
    services: ServicesDep,
    enabled: Annotated[bool, Query(description="Whether it is to be on")],
    user_specific: Annotated[bool, Query(description="Only false: this server has no users of its own")] = False,
) -> Changed:
    """Switch a feature; one that is fixed here is refused, and so is a choice for one user."""
    if user_specific:
        raise InvalidRequest(
            "user_specific is not supported: this server has no users of its own", details={"field": "user_specific"}
        )
    return _apply(services, FLAGS, {}, {flag: enabled})


@router.post("/reset-to-defaults", summary="Back to the defaults", responses=_REFUSED)
def reset(
    services: ServicesDep,
    section: Annotated[
        str | None,
        Query(
            description="user-preferences, admin-policies, feature-flags, or a section; without it all", max_length=64
        ),
    ] = None,
) -> Changed:
    """Remove what config.json sets, so that the defaults apply; `undo` takes it back.

    What can only be changed at the machine, models and LoRAs stay.
    """
    bridge = services.config
    views = {name: _settings_of(table) for name, table in _VIEWS.items()}
    names = {one.name: one for one in bridge.entries()}
    sections = {name.partition(".")[0] for name in names}
    if section is None:
        wanted = list(names)
    elif section in views:
        wanted = list(views[section])
    elif section in sections:
        wanted = [name for name in names if name.startswith(f"{section}.")]
    else:
        known = [*views, *sorted(sections)]
        close = nearest(section, known)
        raise InvalidRequest(
            f"section must be one of {', '.join(known)}",
            details={"field": "section", "allowed": known, "nearest": close},
        )
    written = [name for name in wanted if names[name].position is not None and names[name].over_http]
    changed = bridge.unset(written) if written else ()
    return _changed(services, changed, "The defaults apply")


def _settings_of(table: Table) -> list[str]:
    """Return the settings behind a view: those that its preferences read."""
    seen: list[str] = []

    class Noting(dict[str, Any]):
        def __missing__(self, name: str) -> float:
            seen.append(name)
            return 0.0

    for one in table.values():
        if isinstance(one, Real):
            one.read(Noting())
    return list(dict.fromkeys(seen))


def _change(services: Services, values: dict[str, Any]) -> Changed:
    """Write settings that may be changed over HTTP."""
    if not values:
        raise InvalidRequest("Name at least one setting")
    refuse_at_the_machine(name for name in values if name in services.config.definitions() or "." in name)
    refuse_overruled(services.config, values)
    own = {name.removeprefix(f"{OPTIMIZATION}."): one for name, one in values.items() if name.startswith(OPTIMIZATION)}
    checks = {OPTIMIZATION: services.advisor.parser(own)} if own else {}
    return _changed(services, services.config.set(values, checks), "The configuration was changed")


def _apply(services: Services, table: Table, unsupported: dict[str, str], body: dict[str, Any]) -> Changed:
    values, problems = settings_for(table, unsupported, body, services.config)
    refuse_problems(problems)
    return _change(services, values) if values else _changed(services, (), "Nothing is different")


def _changed(services: Services, changed: tuple[str, ...], message: str) -> Changed:
    later = {one.name for one in services.config.entries() if one.at_restart}
    waits = [name for name in changed if name in later]
    when = "; in force at the next start of the server" if changed and len(waits) == len(changed) else ""
    return Changed(message=message + when, changed=list(changed), at_next_start=waits)


def _waiting(services: Services) -> list[str]:
    return [one.name for one in services.config.entries() if one.next_value is not None]


def _preferences(services: Services, table: Table, unsupported: dict[str, str]) -> Preferences:
    return Preferences(
        **read_group(table, configured(services.config)),
        fixed=[name for name, one in table.items() if isinstance(one, Fixed)],
        not_supported=unsupported,
        at_next_start=_waiting(services),
    )


def _verdict(services: Services, table: Table, unsupported: dict[str, str], body: dict[str, Any]) -> BodyCheck:
    values, problems = settings_for(table, unsupported, body, services.config)
    if not problems and values:
        try:
            refuse_overruled(services.config, values)
        except WanError as error:
            problems.append(Problem("settings", error.message))
    return BodyCheck(
        valid=not problems,
        errors=[
            FaultView(name=one.name, rule=one.rule, nearest=one.nearest, message=f"{one.name} {one.rule}")
            for one in problems
        ],
        changes=values,
    )


def _setting(one: Entry) -> SettingView:
    return SettingView(
        name=one.name,
        value=one.value,
        default=one.default,
        source=one.source,
        meaning=one.meaning,
        legal=one.legal,
        place=None if one.position is None else str(one.position),
        next_value=one.next_value,
        at_restart=one.at_restart,
        changeable=one.over_http,
    )


def _fault(one: ConfigFault) -> FaultView:
    place = one.position
    return FaultView(
        name=one.name,
        rule=one.rule,
        line=None if place is None else place.line,
        column=None if place is None else place.column,
        nearest=one.nearest,
        message=one.sentence,
    )
