"""Between config.json and the settings in force: shows, checks, changes, migrates and restores the whole configuration.

Knows every section and where each value comes from: the command line, above the environment, above the file, above the
defaults. A change is checked as a whole, written at once, recorded, and can be taken back. Never tells a secret.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from backend.core.config.content import differences, entry_keys, merged, plain_value, remove_key, same, without_password
from backend.core.config.definition import Setting
from backend.core.config.download_limit import SECTION as DOWNLOADS
from backend.core.config.download_limit import stored_downloads
from backend.core.config.file import ConfigFile
from backend.core.config.generation_policy import SECTION as GENERATION
from backend.core.config.generation_policy import stored_policy
from backend.core.config.giving_way import SECTION as GIVE_WAY
from backend.core.config.giving_way import stored_giving_way
from backend.core.config.history import Version
from backend.core.config.older_keys import OlderFile, read_older, with_new_names
from backend.core.config.places import Keys
from backend.core.config.report import Entry, Migration, Source
from backend.core.config.schedule import SECTION as SCHEDULE
from backend.core.config.schedule import stored_schedule
from backend.core.config.section import ConfigFault, StoredSection
from backend.core.errors.base import WanError
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings, Forbidden
from backend.core.plain_words import nearest, printable, unknown_name
from backend.core.planning.constraints import SECTION as OPTIMIZATION
from backend.core.planning.constraints import stored_optimization
from backend.core.planning.memory_level import SECTION as CONSTRAINTS
from backend.core.planning.memory_level import stored_limits
from backend.core.settings import SECTION as SETTINGS
from backend.core.settings import Settings, file_settings, load_environment, load_settings, names_in_environment

#: Settings that decide who reaches the server, whom it calls, or where it reads and writes: never changed over HTTP.
AT_THE_MACHINE: Final = frozenset(
    f"{SETTINGS}.{name}"
    for name in (
        "database_url", "host", "port", "cors_origins", "allowed_hosts", "root_path", "trusted_proxies", "model_roots",
        "log_file", "outbound_hosts", "outbound_networks",
    )
)  # fmt: skip
_ELSEWHERE: Final = {
    "api_key": "is ignored: it belongs in the environment, as WAN22_API_KEY; the file and its versions would keep it",
    "home": "is ignored: it belongs in the environment, as WAN22_HOME; the file is in this folder",
    "webhook_secret": "is ignored: it belongs in the environment, as WAN22_WEBHOOK_SECRET, like every secret",
}
#: Longest part of an unknown name that is repeated.
_SHOWN: Final = 100


class SectionOwner(Protocol):
    """The owner of a section whose entries the user names, such as models."""

    @property
    def name(self) -> str:
        """Name of the section."""

    def faults(self, section: dict[str, Any]) -> list[tuple[Keys, str]]:
        """Return the keys of what is ignored in a content of the section, and why."""


class ConfigurationBridge:
    """The configuration of one home folder; safe to use from several threads and processes."""

    def __init__(
        self,
        file: ConfigFile,
        running: Settings | None = None,
        owners: Sequence[SectionOwner] = (),
        environment: Callable[[], frozenset[str]] = names_in_environment,
    ) -> None:
        """`running` are the operator's settings of this process; None = those that a new process would have."""
        self.file = file
        self._running = running
        self._owners = {owner.name: owner for owner in owners}
        self._environment = environment
        self._sections: dict[str, StoredSection[Any]] = {
            OPTIMIZATION: stored_optimization(file),
            GENERATION: stored_policy(file),
            CONSTRAINTS: stored_limits(file),
            DOWNLOADS: stored_downloads(file),
            SCHEDULE: stored_schedule(file),
            GIVE_WAY: stored_giving_way(file),
        }

    @property
    def section_names(self) -> tuple[str, ...]:
        """Every section that is read."""
        return (*self._sections, SETTINGS, *self._owners)

    def definitions(self) -> dict[str, Setting]:
        """Return every setting with its definition, by dotted name."""
        inside = {f"{name}.{one.name}": one for name, stored in self._sections.items() for one in stored.settings}
        return inside | {f"{SETTINGS}.{one.name}": one for one in file_settings()}

    def entries(self) -> list[Entry]:
        """Return every setting as it is in force, with its source."""
        in_file = self.file.running().values
        found = []
        for section, stored in self._sections.items():
            values = stored.current().to_json()
            written = in_file.get(section)
            for one in stored.settings:
                is_written = isinstance(written, dict) and one.name in written
                found.append(
                    Entry(
                        f"{section}.{one.name}",
                        values[one.name],
                        plain_value(one.default),
                        Source.FILE if is_written else Source.DEFAULT,
                        one.meaning,
                        one.rule.words,
                        self.file.position(section, one.name) if is_written else None,
                    )
                )
        return found + self._operator_entries(in_file.get(SETTINGS))

    def entry(self, name: str) -> Entry:
        """Return one setting.

        Raises:
            InvalidRequest: there is none of this name; the message names the nearest one.
        """
        found = next((one for one in self.entries() if one.name == name), None)
        if found is None:
            raise self._unknown(name)
        return found

    def set(
        self,
        values: Mapping[str, Any],
        checks: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
    ) -> tuple[str, ...]:
        """Change settings, all or none, and return the dotted names of the keys that are different now.

        Keys of an entry of models can be set as well, such as `models.T2V-A14B.defaults.steps`. `checks` replaces the
        parsers of sections where the caller can judge new values more strictly.

        Raises:
            InvalidRequest: a name is unknown or a value illegal; nothing was changed.
            BadSettings: the file cannot be read, and is therefore not overwritten.
        """
        given = [self._checked(name, value) for name, value in values.items()]

        def changed(content: dict[str, Any]) -> dict[str, Any]:
            after = content
            for section in dict.fromkeys(keys[0] for keys, _ in given):
                own = {keys: value for keys, value in given if keys[0] == section}
                after = self.file.with_section(after, section, self._change_of(section, own, checks or {}))
            self._refuse_new_faults(content, after)
            return after

        return self._rewritten(changed)

    def unset(self, names: Sequence[str]) -> tuple[str, ...]:
        """Remove settings from the file, so that their defaults apply; return the dotted names of what has gone.

        A name may also be that of a section, of an entry, or of something unknown in the file.

        Raises:
            InvalidRequest: the file has nothing of this name; nothing was changed.
            BadSettings: the file cannot be read, and is therefore not overwritten.
        """

        def changed(content: dict[str, Any]) -> dict[str, Any]:
            result = copy.deepcopy(content)
            older = read_older(content).settings
            for name in names:
                aliases = [".".join(one.keys) for one in older if one.target and ".".join(one.target) == name]
                if not [alias for alias in (*aliases, name) if remove_key(result, alias)]:
                    raise InvalidRequest(
                        printable(f"{self.file.path.name} does not set {name[:_SHOWN]}"),
                        suggestions=("`wan22 config show` names what it sets; nothing was changed.",),
                    )
            return result

        return self._rewritten(changed)

    def faults(self) -> list[ConfigFault]:
        """Return everything in the file that has no effect, with its place, the rule and the nearest legal value."""
        try:
            values = self.file.read().values
        except BadSettings as error:
            return [
                ConfigFault((), f"{error.message}; the last readable settings are in force", None, self.file.path.name)
            ]
        repeated = [
            ConfigFault(keys, "is ignored: it occurs again below", position, self.file.path.name)
            for position, keys in self.file.repeated()
        ]
        return repeated + self._faults_of(values)

    def older(self) -> OlderFile:
        """Return what the file has of the earlier application.

        Raises:
            BadSettings: the file cannot be read.
        """
        return self.file.read()

    def migrate(self, other: OlderFile | None = None, *, dry_run: bool = False) -> Migration:
        """Write every setting of the earlier application under its name of today.

        Args:
            other: what another file holds; None = this home's own file. Of another file only what has a meaning here is
                taken over, and what this home sets itself stays.
            dry_run: whether to say what would be done, and change nothing.

        Raises:
            BadSettings: this home's file cannot be read; nothing was changed.
        """
        outcome: list[Migration] = []

        def changed(content: dict[str, Any]) -> dict[str, Any]:
            source = read_older(content) if other is None else other
            known = {name: source.values[name] for name in self.section_names if source.values.get(name)}
            result, stays = (with_new_names(content), ()) if other is None else merged(content, known)
            values = read_older(result).values
            outcome[:] = [
                Migration(
                    source.generation,
                    source.settings,
                    source.missing,
                    tuple(name for name in source.values if name not in self.section_names),
                    tuple(differences(content, result)),
                    stays,
                    tuple(self._faults_of(values, located=False)),
                )
            ]
            return content if dry_run else result

        self.file.rewrite(changed, "migrate")
        return outcome[0]

    def versions(self) -> list[Version]:
        """Return the recorded versions of the file, the newest first."""
        return self.file.history.versions()

    def note(self) -> None:
        """Record what somebody edited by hand as a version; without effect on a file that cannot be read."""
        with suppress(WanError):
            self.file.note()

    @property
    def edited(self) -> bool:
        """Whether the file is not its newest version: somebody edited it by hand, and nothing was changed since."""
        newest = self.file.history.newest()
        try:
            return newest is not None and self.file.text() != newest.content
        except BadSettings:
            return True

    def undo(self, number: int | None = None, *, over_http: bool = False) -> tuple[Version, tuple[str, ...]]:
        """Put the version before the present one back, or a numbered one.

        `over_http` keeps what can only be changed at the machine.

        Returns:
            The version that is back, and the dotted names of the keys that are different now.

        Raises:
            StateConflict: there is no such version, or it cannot be read; nothing was changed.
            Forbidden: the versions differ in something that can only be changed at the machine; nothing was changed.
        """

        def check(left: Version, back: Version) -> None:
            if over_http:
                refuse_at_the_machine(differences(left.values or {}, back.values or {}))

        left, back = self.file.undo(number, check)
        return back, tuple(differences(left.values or {}, back.values or {}))

    def shown(self, name: str, value: Any) -> Any:
        """Return a value of the file as it may be shown; a text of an unknown setting may be a secret."""
        known = name in self.definitions() or name.partition(".")[0] in self._owners
        return without_password(value) if known or not isinstance(value, str) else "***"

    def _operator_entries(self, written: Any) -> list[Entry]:
        running, given = self._running or _usable_settings(), self._environment()
        now, stored = running.model_dump(mode="json"), written if isinstance(written, dict) else {}
        found = []
        for one in file_settings():
            name, default = f"{SETTINGS}.{one.name}", plain_value(one.default)
            after = stored.get(one.name, default)
            if one.name in given:
                source = Source.ENVIRONMENT
            elif one.name in running.from_file:
                source = Source.FILE
            else:
                source = Source.COMMAND_LINE if one.name in running.model_fields_set else Source.DEFAULT
            below = source in (Source.FILE, Source.DEFAULT) and not same(after, now[one.name])
            found.append(
                Entry(
                    name,
                    without_password(now[one.name]),
                    default,
                    source,
                    one.meaning,
                    one.rule.words,
                    self.file.position(SETTINGS, one.name) if one.name in stored else None,
                    without_password(after) if below and one.refusal(after) is None else None,
                    at_restart=True,
                    over_http=name not in AT_THE_MACHINE,
                )
            )
        return found

    def _checked(self, name: str, value: Any) -> tuple[Keys, Any]:
        """Return the keys of a setting and the value to store."""
        section, _, rest = name.partition(".")
        if section in self._owners and rest:
            return entry_keys(section, rest), value
        definition = self.definitions().get(name)
        if definition is None:
            raise self._unknown(name)
        refusal = definition.refusal(value)
        if refusal is not None:
            near = definition.rule.nearest(value)
            details = refusal.details if isinstance(refusal.details, dict) else {}
            raise InvalidRequest(
                refusal.message + ("" if near is None else f"; the nearest legal value is {json.dumps(near)}"),
                details=details | {"field": name} | ({} if near is None else {"nearest": near}),
                suggestions=("Nothing was changed.",),
            )
        return (section, rest), value

    def _change_of(
        self, section: str, given: Mapping[Keys, Any], checks: Mapping[str, Callable[[dict[str, Any]], Any]]
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return what new values do to the content of a section."""
        stored = self._sections.get(section)
        if stored is not None:
            return stored.changing({keys[1]: value for keys, value in given.items()}, checks.get(section))

        def put(before: dict[str, Any]) -> dict[str, Any]:
            after = copy.deepcopy(before)
            for keys, value in given.items():
                inside = after
                for key in keys[1:-1]:
                    inside = inside.setdefault(key, {})
                    if not isinstance(inside, dict):
                        raise InvalidRequest(printable(f"`{'.'.join(keys[:-1])[:_SHOWN]}` is not an object"))
                inside[keys[-1]] = value
            return after

        return put

    def _refuse_new_faults(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Refuse a change of entries that their owner could not use."""
        old = {(fault.keys, fault.rule) for fault in self._owner_faults(read_older(before).values)}
        for fault in self._owner_faults(read_older(after).values):
            if (fault.keys, fault.rule) not in old:
                raise InvalidRequest(printable(f"`{fault.name}` {fault.rule}"), suggestions=("Nothing was changed.",))

    def _rewritten(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[str, ...]:
        before: dict[str, Any] = {}

        def noted(content: dict[str, Any]) -> dict[str, Any]:
            nonlocal before
            before = copy.deepcopy(content)
            return change(content)

        after = self.file.rewrite(noted)
        return tuple(differences(before, after))

    def _faults_of(self, values: dict[str, Any], *, located: bool = True) -> list[ConfigFault]:
        """Return what is ignored in a content; `located` = whether it is that of the file."""
        found = [
            self._fault((name,), unknown_name(name, self.section_names, "section"), nearest(name, self.section_names))
            for name in values
            if name not in self.section_names
        ]
        for name, stored in self._sections.items():
            found += stored.faults_in(values.get(name, {}))
        found += self._operator_faults(values.get(SETTINGS, {})) + self._owner_faults(values)
        return found if located else [replace(fault, position=None) for fault in found]

    def _operator_faults(self, section: Any) -> list[ConfigFault]:
        if not isinstance(section, dict):
            return [self._fault((SETTINGS,), "must be an object; it is ignored")]
        definitions, found = {one.name: one for one in file_settings()}, []
        for name, value in section.items():
            one = definitions.get(name)
            if one is None:
                elsewhere = _ELSEWHERE.get(name)
                near = None if elsewhere else nearest(name, definitions)
                found.append(
                    self._fault((SETTINGS, name), elsewhere or unknown_name(name, definitions, "setting"), near)
                )
            elif (refusal := one.refusal(value)) is not None:
                near = one.rule.nearest(value)
                legal = "" if near is None else f"; the nearest legal value is {json.dumps(near)}"
                found.append(
                    self._fault((SETTINGS, name), f"keeps a server from starting: {refusal.message}{legal}", near)
                )
        return found

    def _owner_faults(self, values: dict[str, Any]) -> list[ConfigFault]:
        found = []
        for name, owner in self._owners.items():
            section = values.get(name, {})
            if isinstance(section, dict):
                found += [self._fault(keys, rule) for keys, rule in owner.faults(section)]
            else:
                found.append(self._fault((name,), "must be an object; it is ignored"))
        return found

    def _fault(self, keys: Keys, rule: str, near: Any = None) -> ConfigFault:
        return ConfigFault(keys, rule, self.file.position(*keys), self.file.path.name, near)

    def _unknown(self, name: str) -> InvalidRequest:
        known = self.definitions()
        close = nearest(name, known) or next((one for one in known if one.partition(".")[2] == name), None)
        meant = "" if close is None else f"; did you mean {close}?"
        return InvalidRequest(
            printable(f"There is no setting {name[:_SHOWN]}{meant}"),
            suggestions=("`wan22 config show` lists all settings; nothing was changed.",),
        )


def refuse_at_the_machine(names: Iterable[str]) -> None:
    """Refuse a change over HTTP of what decides who can reach the server, or where it reads and writes.

    Raises:
        Forbidden: a name is of such a setting, or of an entry of models or LoRAs.
    """
    inside = {OPTIMIZATION, GENERATION, CONSTRAINTS, DOWNLOADS, SCHEDULE, GIVE_WAY, SETTINGS}
    for name in names:
        if name in AT_THE_MACHINE or name.partition(".")[0] not in inside:
            raise Forbidden(
                printable(f"{name[:_SHOWN]} can only be changed at the machine itself"),
                suggestions=("Use `wan22 config` there; nothing was changed.",),
            )


def _usable_settings() -> Settings:
    """Return the settings that a new process would have; those of the environment where the file would stop it."""
    try:
        return load_settings()
    except BadSettings:
        return load_environment()
