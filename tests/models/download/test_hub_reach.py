"""Whether the hub can be asked: a real server on loopback, and ways on which there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from backend.models.download.hub import Hub, Reach
from tests.support.hub import Answer, StandIn


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port that somebody has taken and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


def address(port: socket.socket) -> str:
    return f"http://127.0.0.1:{port.getsockname()[1]}"


def test_a_hub_that_answers_is_reachable_and_hears_no_token(hub: StandIn) -> None:
    assert Hub(hub.endpoint, "hf_secret").reach() == (Reach.REACHABLE, "it answers 404")
    assert [request.authorization for request in hub.requests] == [None]
    assert Hub(hub.endpoint).host == "127.0.0.1"


@pytest.mark.parametrize("status", [403, 407, 503])
def test_one_that_refuses_is_blocked(hub: StandIn, status: int) -> None:
    hub.answers.append(Answer(status))
    assert Hub(hub.endpoint).reach() == (Reach.BLOCKED, f"it answers {status}")


def test_where_nobody_listens_there_is_no_way(port: socket.socket) -> None:
    reach, how = Hub(address(port)).reach()
    assert reach is Reach.OFFLINE
    assert "ConnectError" in how


def test_who_takes_the_call_and_says_nothing_blocks(port: socket.socket) -> None:
    port.listen()
    reach, how = Hub(address(port)).reach(seconds=0.2)
    assert reach is Reach.BLOCKED
    assert "no answer within 0.2 s" in how


def test_an_address_that_is_none_is_no_way() -> None:
    assert Hub("nonsense").reach()[0] is Reach.OFFLINE


def test_a_hub_that_must_not_be_asked_is_not(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Hub(hub.endpoint).reach()[0] is Reach.OFFLINE
    assert hub.requests == []
