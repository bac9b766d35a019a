"""The operator's settings: one class, filled from `WAN22_*` environment variables, above section `settings` of
config.json. Nothing else reads the environment.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, get_args, get_origin

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from backend.core.config.definition import Number, Setting, Switch
from backend.core.config.file import ConfigFile
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.faults import VARIABLE as FAULTS
from backend.core.paths import Home
from backend.core.plain_words import in_plain_words, nearest, printable
from backend.core.planning.abilities import AttentionSetting, ConvolutionSetting
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.requests.webhooks import key_of

ENV_PREFIX = "WAN22_"
#: Beginnings of names that are meant for this product, also with the separator in the wrong place.
_OWN_NAME: Final = re.compile(r"WAN_?22_?", re.IGNORECASE)
#: The form of a path under which a proxy publishes the server.
ROOT_PATH = r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+"
_DEVICE = re.compile(r"auto|cpu|cuda(?::\d{1,3})?")
#: A host that may be called: any, a name with or without all names below it, or an address; then perhaps a port.
_OUTBOUND_HOST = re.compile(r"(?:\*|(?:\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?|[0-9A-Fa-f:.]+")
#: What is set in the environment alone: the folder that config.json is in, and secrets, because every version of the
#: file is kept.
ENVIRONMENT_ONLY: Final = ("home", "api_key", "webhook_secret")


def _default_home() -> Path:
    """Return `~/.wan22`.

    Raises:
        BadSettings: the user has no home folder, as in a container without an account.
    """
    try:
        return Path.home() / ".wan22"
    except RuntimeError:
        raise BadSettings(
            "This user has no home folder", suggestions=("Set WAN22_HOME to a folder that can be written to.",)
        ) from None


class Settings(BaseSettings):
    """The operator's settings; the variable of a field is `WAN22_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    home: Path = Field(default_factory=_default_home, description="Folder for everything kept on disk")
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; the default is SQLite in the home folder"
    )
    host: str = Field(default="127.0.0.1", description="Address the server listens on")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the server listens on; 0 picks a free one")
    api_key: SecretStr | None = Field(default=None, description="Key that clients send as `Authorization: Bearer`")
    cors_origins: list[str] = Field(
        default_factory=list, description="Additional origins whose pages may call the API (JSON list)"
    )
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Additional Host names the server answers to (JSON list)"
    )
    root_path: str = Field(
        default="",
        description="Path under which a proxy publishes the server, such as /wan22; `X-Forwarded-Prefix` wins",
    )
    trusted_proxies: list[str] = Field(
        default_factory=lambda: ["127.0.0.1", "::1"],
        description="Addresses or networks of proxies whose `X-Forwarded-*` headers are believed (JSON list); * is all",
    )
    outbound_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that webhooks may be at (JSON list): names, addresses, *.example.com, each with :port or "
        "without; * is every public one; empty turns webhooks off",
    )
    outbound_networks: list[str] = Field(
        default_factory=list,
        description="Private networks that these hosts may be in, such as 192.168.1.0/24 (JSON list)",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Secret that signs messages to webhooks, as whsec_ and base64; two with a space between them while "
        "it is replaced; the default is one of this home's own",
    )
    keep_alive_seconds: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="How long an idle connection stays open, in seconds; longer than a proxy's",
    )
    model_roots: list[Path] = Field(
        default_factory=list, description="Folders of other programs whose model files are used (JSON list), read-only"
    )
    worker: bool = Field(default=True, description="Whether `serve` also runs a worker")
    auto_download: bool = Field(default=True, description="Whether a task downloads a missing model automatically")
    device: str = Field(default="auto", description="Device of the worker: auto, cpu, cuda or cuda:N")
    attention: AttentionSetting = Field(
        default=AttentionSetting.AUTO,
        description="Attention kernel: auto picks the fastest exact one, speed also allows an eight-bit one, or a name",
    )
    convolution: ConvolutionSetting = Field(
        default=ConvolutionSetting.AUTO,
        description="Convolutions of the VAE on a processor: auto (oneDNN if correct and no slower), native or onednn",
    )
    lease_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="How long a silent worker keeps its task, in seconds; the same on every machine",
    )
    heartbeat_seconds: float = Field(default=5.0, gt=0, le=600, description="Seconds between a worker's heartbeats")
    recovery_seconds: float = Field(default=5.0, gt=0, le=600, description="Seconds between scans for silent workers")
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Lost attempts in a row without a new saved state after which a task is given up",
    )
    retry_seconds: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="First pause before a failed attempt is repeated, in seconds; it doubles; 0 turns repeats off",
    )
    state_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Longest denoising without a saved state, in seconds; 0 saves one after every step",
    )
    stall_seconds: float = Field(
        default=30.0,
        ge=0,
        le=86_400,
        description="Shortest time without progress after which a worker is replaced, in seconds; 0 disables it",
    )
    stall_factor: float = Field(
        default=3.0,
        ge=1,
        le=1000,
        description="How many times its expected duration a step may take before the worker is replaced",
    )
    restart_limit: int = Field(
        default=5, ge=0, le=1000, description="Worker restarts allowed within the restart window"
    )
    restart_window_seconds: float = Field(default=300.0, gt=0, description="Length of the restart window, in seconds")
    restart_backoff_seconds: float = Field(
        default=0.5, ge=0, le=60, description="First pause before a restart, in seconds; it doubles each time"
    )
    stop_grace_seconds: float = Field(
        default=6.0, ge=0, le=600, description="How long a stop waits for the worker, in seconds"
    )
    cancel_grace_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="How long a worker may take to stop a cancelled task before it is replaced, in seconds",
    )
    poll_seconds: float = Field(
        default=0.1, gt=0, le=10, description="Interval between polls of the queue and the event log, in seconds"
    )
    stats_seconds: float = Field(
        default=1.0, gt=0, le=60, description="Interval between system statistics sent to subscribers, in seconds"
    )
    oom_policy: OomPolicy = Field(
        default=OomPolicy.QUALITY,
        description="When memory runs out: none fails, quality keeps the weights as they are, speed may round them",
    )
    recheck_days: float = Field(
        default=30.0, ge=0, le=3650, description="Days after which a model's files are verified again; 0 disables it"
    )
    keep_states_hours: float = Field(
        default=24.0,
        ge=0,
        le=8760,
        description="Hours for which a failed or cancelled task keeps its newest state, from which a retry continues",
    )
    idle_unload_seconds: float = Field(
        default=0.0, ge=0, description="Idle seconds after which a worker unloads its model; 0 disables it"
    )
    health_seconds: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="Interval between looks of the health monitor, in seconds; 0 is off",
    )
    auto_recovery: bool = Field(
        default=True, description="Whether the health monitor carries out recovery actions by itself, within a budget"
    )
    janitor_seconds: float = Field(
        default=600.0, gt=0, le=86_400, description="Interval between two rounds of the janitor, in seconds"
    )
    backup_hours: float = Field(
        default=24.0, ge=0, le=8760, description="Hours between two copies of the SQLite database; 0 makes none"
    )
    backup_copies: int = Field(
        default=7, ge=1, le=1000, description="Copies of the database that are kept in `backups`"
    )
    keep_progress_days: float = Field(
        default=7.0, ge=0, le=3650, description="Days after which the progress events of an ended task go; 0 keeps them"
    )
    keep_hidden_days: float = Field(
        default=30.0, ge=0, le=3650, description="Days after which removed tasks without a video go; 0 keeps them"
    )
    database_mb: float = Field(
        default=512.0,
        ge=0,
        description="Size of the SQLite database above which progress events of ended tasks go early; 0 is no limit",
    )
    keep_deliveries_days: float = Field(
        default=30.0, ge=0, le=3650, description="Days for which ended messages to webhooks are kept; 0 keeps them"
    )
    trash_days: float = Field(
        default=7.0, ge=0, le=3650, description="Days for which deleted videos can be restored; 0 deletes them at once"
    )
    keep_prompts: int = Field(
        default=1000, ge=0, le=100_000, description="Prompts in the history, beside favourites; 0 remembers none"
    )
    keep_uploads_hours: float = Field(
        default=1.0, gt=0, le=8760, description="Hours after which an uploaded image that no task uses is deleted"
    )
    keep_parts_hours: float = Field(
        default=24.0, gt=0, le=8760, description="Hours after which an unfinished file that nobody writes is deleted"
    )
    keep_workers_hours: float = Field(
        default=24.0, ge=0, le=8760, description="Hours after which a silent worker leaves the register; 0 keeps it"
    )
    samples_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="Interval between stored samples of the load, in seconds; 0 is off"
    )
    keep_samples_days: float = Field(
        default=7.0, ge=0, le=3650, description="Days after which samples of the load go; 0 keeps them"
    )
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads of the engine; 0 leaves the choice to torch")
    log_json: bool = Field(default=False, description="Write the log as JSON lines")
    log_file: Path | None = Field(
        default=None, description="File for the log instead of stderr; a relative path is in `logs` of the home folder"
    )
    log_max_mb: float = Field(default=10.0, ge=0.01, le=10_000, description="Size limit of that file, in megabytes")
    log_generations: int = Field(default=3, ge=0, le=100, description="How many older log files are kept beside it")

    _from_file: frozenset[str] = PrivateAttr(default=frozenset())

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if _DEVICE.fullmatch(device) is None:
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return device

    @field_validator("outbound_hosts")
    @classmethod
    def _hosts(cls, hosts: list[str]) -> list[str]:
        if not all(map(_OUTBOUND_HOST.fullmatch, hosts)):
            raise ValueError('must be hosts without a scheme or path, such as ["example.com", "*.example.org:8443"]')
        return hosts

    @field_validator("webhook_secret")
    @classmethod
    def _secrets(cls, secret: SecretStr | None) -> SecretStr | None:
        try:
            if secret is not None and not [key_of(one) for one in secret.get_secret_value().split()]:
                return None
        except InvalidRequest:
            raise ValueError("must be whsec_ and 24 to 64 bytes in base64, or two of these") from None
        return secret

    @field_validator("outbound_networks")
    @classmethod
    def _networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError("must be networks such as 192.168.1.0/24") from None
        return networks

    @field_validator("root_path")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        plain = path.strip().rstrip("/")
        if plain and re.fullmatch(ROOT_PATH, plain) is None:
            raise ValueError("must be a path such as /wan22")
        return plain

    @property
    def from_file(self) -> frozenset[str]:
        """The settings that came from config.json."""
        return self._from_file

    @property
    def paths(self) -> Home:
        """The home folder, absolute.

        Raises:
            BadSettings: `~` in it names no home folder.
        """
        try:
            return Home(self.home.expanduser().resolve())
        except RuntimeError:
            raise BadSettings(
                "WAN22_HOME begins with ~, but that user has no home folder",
                suggestions=("Set WAN22_HOME to a full path.",),
            ) from None

    @property
    def database(self) -> str | Path:
        """The SQLAlchemy URL of the database in use, or the path of the SQLite file in the home folder."""
        return self.database_url or self.paths.database


#: Section of config.json for these settings.
SECTION: Final = "settings"
#: What it may hold.
FILE_SETTINGS: Final = tuple(name for name in Settings.model_fields if name not in ENVIRONMENT_ONLY)
_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_KINDS: Final = {"bool": "`true`, `false`", "Path": "a path"}


def load_settings(**overrides: object) -> Settings:
    """Read the settings: keyword arguments, above the environment, above section `settings` of config.json.

    Raises:
        BadSettings: a value is invalid. The message names the variable or the place in the file, and the rule, never
            the value.
    """
    above = load_environment(**overrides)
    file = ConfigFile(above.paths.config_file)
    stored = file.running_section(SECTION)
    below = {name: stored[name] for name in FILE_SETTINGS if name in stored and name not in above.model_fields_set}
    if not below:
        return above
    try:
        settings = Settings(**(overrides | below))  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [(str(fault["loc"][0]), in_plain_words(fault)) for fault in error.errors()]
        raise BadSettings(
            "; ".join(f"{file.place(SECTION, name)}: `{SECTION}.{name}` {rule}" for name, rule in faults),
            suggestions=(f"Correct {file.path}, or remove the line: `wan22 config unset {SECTION}.{faults[0][0]}`.",),
        ) from None
    settings._from_file = frozenset(below)
    return settings


def load_environment(**overrides: object) -> Settings:
    """Read the settings as `load_settings`, without config.json.

    Raises:
        BadSettings: a value is invalid.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [f"{ENV_PREFIX}{'.'.join(map(str, e['loc'])).upper()} {in_plain_words(e)}" for e in error.errors()]
        raise BadSettings("; ".join(faults)) from None
    except SettingsError as error:  # only lists are parsed as JSON; the library's sentence names the field
        named = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "settings")
        raise BadSettings(f'{ENV_PREFIX}{named.upper()} must be a JSON list, such as ["value"]') from None


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """The rule of one of the operator's settings, from its field."""

    name: str

    @property
    def words(self) -> str:
        """The legal values."""
        field = Settings.model_fields[self.name]
        kind = next((one for one in (*get_args(field.annotation), field.annotation) if isinstance(one, type)), None)
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return ", ".join(f"`{one}`" for one in kind)
        if get_origin(field.annotation) is list:
            return "a list"
        bounds = {name: getattr(one, name) for one in field.metadata for name in _BOUNDS if hasattr(one, name)}
        limits = " and ".join(f"{_BOUNDS[name]} {bound:g}" for name, bound in bounds.items())
        return limits or _KINDS.get(getattr(kind, "__name__", ""), "text")

    def check(self, name: str, value: object) -> object:
        """Return the value as it is stored in the file.

        Raises:
            InvalidRequest: it is illegal.
        """
        try:
            checked = Settings(home=Path(), **{self.name: value})  # type: ignore[arg-type]
        except ValidationError as error:
            rule = next((in_plain_words(one) for one in error.errors() if one["loc"][0] == self.name), None)
            if rule is not None:
                raise InvalidRequest(f"{name} {rule}", details={"field": name}) from None
            return value  # another setting, of the environment, is wrong
        return checked.model_dump(mode="json", include={self.name})[self.name]

    def nearest(self, value: object) -> object:
        """Return the nearest legal value; None if there is none."""
        field = Settings.model_fields[self.name]
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return nearest(value, kind) if isinstance(value, str) else None
        if kind is bool:
            return Switch().nearest(value)
        if kind not in (int, float):
            return None
        bounds = {name: getattr(one, name) for one in field.metadata for name in _BOUNDS if hasattr(one, name)}
        low, high = bounds.get("ge", -math.inf), bounds.get("le", math.inf)
        near = Number(low, high, whole=kind is int).nearest(value)
        return None if near is None or ("gt" in bounds and near <= bounds["gt"]) else near


def file_settings() -> tuple[Setting, ...]:
    """Return the settings that section `settings` of config.json may hold."""
    fields = ((name, Settings.model_fields[name]) for name in FILE_SETTINGS)
    return tuple(
        Setting(name, field.get_default(call_default_factory=True), field.description or "", OperatorRule(name))
        for name, field in fields
    )


def names_in_environment(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the settings that the environment sets."""
    given = {name.upper() for name in environment}
    return frozenset(name for name in Settings.model_fields if f"{ENV_PREFIX}{name.upper()}" in given)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence about each environment variable that looks like a setting but is not one."""
    known = {*Settings.model_fields, FAULTS.removeprefix(ENV_PREFIX).lower()}
    faults = []
    for name in sorted(environment):
        beginning = _OWN_NAME.match(name)
        if beginning is None or (name.upper().startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].lower() in known):
            continue
        close = nearest(name[beginning.end() :], Settings.model_fields)
        meant = "" if close is None else f"; did you mean {ENV_PREFIX}{close.upper()}?"
        faults.append(printable(f"The environment variable {name} is not a setting and is ignored{meant}"))
    return faults
