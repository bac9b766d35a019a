"""Settings: misspelt variables are named, and a user without a home folder gets a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.core.errors.surroundings import BadSettings
from backend.core.settings import load_settings, unknown_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WAN22_DEVCE", "WAN22_DEVICE"),
        ("WAN22_API-KEY", "WAN22_API_KEY"),
        ("WAN22_MODEL_ROOT", "WAN22_MODEL_ROOTS"),
        ("wan22_alowed_hosts", "WAN22_ALLOWED_HOSTS"),
        ("WAN_22_HOME", "WAN22_HOME"),
        ("WAN22HOME", "WAN22_HOME"),
        ("WAN22_TEMPERATURE", None),
        ("WAN22_\x1b[2J", None),
    ],
)
def test_a_misspelt_variable_is_named(name: str, meant: str | None) -> None:
    (fault,) = unknown_variables({"PATH": "/bin", "WAN22_HOME": "/srv", name: "x"})
    assert fault.isprintable()
    assert "is not a setting" in fault
    assert fault.endswith(f"did you mean {meant}?" if meant else "ignored")


def test_settings_in_any_case_and_other_variables_are_no_mistakes() -> None:
    others = {"WAN22_PORT": "1", "wan22_device": "cpu", "WAN22_FAULTS": "", "SWAN22_HOME": "", "HOME": "/"}
    assert unknown_variables(others) == []


def test_without_a_home_folder_the_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("WAN22_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(BadSettings, match="no home folder") as refused:
        load_settings()
    assert "WAN22_HOME" in refused.value.next_steps[0]
    assert load_settings(home=tmp_path).paths.root == tmp_path.resolve()
    with pytest.raises(BadSettings, match="WAN22_HOME"):
        _ = load_settings(home="~nobody-of-this-name/wan22").paths


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"outbound_hosts": ["https://a.example"]}, "must be hosts without a scheme or path"),
        ({"outbound_hosts": ["a.example/hook"]}, "must be hosts without a scheme or path"),
        ({"outbound_hosts": ["a.example", ""]}, "must be hosts without a scheme or path"),
        ({"outbound_networks": ["10.0.0.5/24"]}, "must be networks such as"),
        ({"webhook_secret": "whsec_dGlueQ=="}, "must be whsec_ and 24 to 64 bytes"),
        ({"webhook_secret": "QUJD" * 10}, "must be whsec_ and 24 to 64 bytes"),
    ],
)
def test_what_decides_whom_the_server_calls_is_checked_at_the_start(values: dict[str, object], rule: str) -> None:
    with pytest.raises(BadSettings, match=rule) as refused:
        load_settings(**values)
    assert "tiny" not in refused.value.message
    assert "QUJD" not in refused.value.message


def test_hosts_and_secrets_of_webhooks_have_their_usual_forms() -> None:
    hosts = ["*", "a.example", "*.a.example", "a.example:8443", "10.0.0.5", "[fd00::1]", "[fd00::1]:80", "fd00::1"]
    assert load_settings(outbound_hosts=hosts).outbound_hosts == hosts
    assert load_settings(webhook_secret=" ").webhook_secret is None
    two = "whsec_" + "QUJD" * 10 + " whsec_" + "REVG" * 10
    assert two not in repr(load_settings(webhook_secret=two))
