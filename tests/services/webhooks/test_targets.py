"""Which addresses a webhook may have: everything that programs read in different ways, and every private network."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from backend.core.errors.requests import UrlNotAllowed
from backend.services.outbound.connection import Allowance, connect
from backend.services.outbound.targets import IpAddress, OutboundRules

ANY = OutboundRules(("*",))

REFUSED = [
    "http://127.1/",
    "http://127.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://example.com./",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[2001:0:7f00:1::]/",
    "http://168.63.129.16/metadata",
    "http://192.0.0.192/opc/v2/",
    "http://100.100.100.200/latest/meta-data/",
    "http://240.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://192.168.1.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.0.0.1/",
    "http://exämple.com/",
    "http://a@b.example/",
    "http://a:b@b.example/",
    "http://127.0.0.1%2f@b.example/",
    "http://x\\@127.0.0.1/",
    "http://b.example\\@127.0.0.1/",
    "http://b.example#@127.0.0.1/",
    "http://b.example/\r\nX: y",
    "http://b.example/\n",
    "http://b.example /",
    "http://b.example:99999/",
    "http://b.example:0/",
    "http://b.example:x/",
    "http:///path",
    "http:b.example",
    "//b.example/",
    "HTTP://b.example/",
    "file:///etc/passwd",
    "gopher://b.example/",
    "ftp://b.example/",
    "data:text/plain,x",
    "",
    "http://b.example/" + "x" * 2000,
]


@pytest.mark.parametrize("url", REFUSED)
def test_22_addresses_that_lead_elsewhere_are_refused_before_anything_is_connected(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        ANY.check(url)
    assert "127" not in refused.value.message  # says nothing of what is there


@pytest.mark.parametrize(
    ("allowed", "url", "may"),
    [
        ((), "https://a.example/", False),
        (("*",), "https://a.example/x?y=1", True),
        (("a.example",), "https://A.Example/", True),
        (("a.example",), "https://b.a.example/", False),
        (("*.a.example",), "https://b.a.example/", True),
        (("*.a.example",), "https://a.example/", False),
        (("*.a.example",), "https://ba.example/", False),
        (("a.example:8443",), "https://a.example:8443/", True),
        (("a.example:8443",), "https://a.example/", False),
        (("8.8.8.8",), "http://8.8.8.8/", True),
        (("xn--exmple-cua.com",), "https://xn--exmple-cua.com/", True),
    ],
)
def test_only_hosts_that_the_operator_names_may_be_called(allowed: tuple[str, ...], url: str, may: bool) -> None:
    rules = OutboundRules(allowed)
    if may:
        assert rules.check(url).host in url.lower()
    else:
        with pytest.raises(UrlNotAllowed):
            rules.check(url)


def test_a_private_network_is_called_only_where_it_is_named() -> None:
    rules = OutboundRules(("10.0.0.5", "10.1.0.5"), (ipaddress.ip_network("10.0.0.0/24"),))
    assert rules.check("http://10.0.0.5/").port == 80
    with pytest.raises(UrlNotAllowed):
        rules.check("http://10.1.0.5/")


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["169.254.169.254"], []])
def test_one_private_address_of_a_name_spoils_it(found: list[str]) -> None:
    asked = []

    def resolve(host: str, port: int) -> tuple[IpAddress, ...]:
        asked.append((host, port))
        return tuple(map(ipaddress.ip_address, found))

    with pytest.raises(UrlNotAllowed):
        connect(ANY.check("http://a.example:81/"), ANY, resolve, Allowance(5, 100))
    assert asked == [("a.example", 81)]


def test_the_address_that_was_checked_is_the_one_that_is_connected() -> None:
    rules = OutboundRules(("flip.example",), (ipaddress.ip_network("127.0.0.0/24"),))
    with socket.create_server(("127.0.0.1", 0)) as allowed:
        answers = iter([("127.0.0.1",), ("127.0.1.1",)])

        def resolve(host: str, port: int) -> tuple[IpAddress, ...]:
            return tuple(map(ipaddress.ip_address, next(answers)))

        target = rules.check(f"http://flip.example:{allowed.getsockname()[1]}/")
        connection = connect(target, rules, resolve, Allowance(5, 100))
        accepted, _ = allowed.accept()
        accepted.close()
        connection.close()
        with pytest.raises(UrlNotAllowed):  # the second answer of the name server is checked, too
            connect(target, rules, resolve, Allowance(5, 100))
