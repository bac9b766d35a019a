"""Which addresses that clients name may be called: the form of a URL, the operator's hosts, and what an IP address is.

Pure: opens no connection and asks no name server. Whatever programs read in different ways is refused, not interpreted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import urlsplit

from backend.core.errors.requests import UrlNotAllowed
from backend.core.settings import Settings

IpAddress = IPv4Address | IPv6Address

MAX_URL_CHARS: Final = 2000
_PORTS: Final = {"http": 80, "https": 443}
#: Printable ASCII without blanks, quotes, backslash, and without `#`: a fragment is never sent.
_PLAIN: Final = re.compile(r"^https?://[!$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]]+$")
_NAME: Final = re.compile(
    r"^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$"
)
#: A last label that some programs read as an IPv4 address in another notation.
_NUMBER: Final = re.compile(r"^(?:[0-9]+|0x[0-9a-f]*)$")
#: Ranges of IPv6 that hold an IPv4 address, and the bits that its lowest one is shifted by.
_EMBEDDING: Final = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated
    (IPv6Network("::/96"), 0),  # compatible
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of a site
    (IPv6Network("2002::/16"), 80),  # 6to4
)
_MAPPED: Final = _EMBEDDING[0][0]
#: Where the public addresses of IPv6 are (RFC 4291); the library counts site-local ones as public, too.
_PUBLIC_IPV6: Final = IPv6Network("2000::/3")
#: Addresses that count as public, and are services of a cloud's host to the machines on it.
_OF_CLOUDS: Final = (
    IPv4Network("168.63.129.16/32"),  # Azure
    IPv4Network("192.0.0.0/24"),  # Oracle has 192.0.0.192; Python before 3.11.9 counts most of this network as public
)


@dataclass(frozen=True, slots=True)
class OutboundTarget:
    """A URL that was taken apart once; nothing reads the text again."""

    scheme: str
    host: str  #: in lower case; an IPv6 address without brackets
    port: int
    path: str  #: with the query
    address: IpAddress | None  #: of a host that is one

    @property
    def in_header(self) -> str:
        """The value of the header `Host`."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> OutboundTarget:
    """Take a URL apart.

    Raises:
        UrlNotAllowed: it is not plain http or https, names a user, or its host has a form that programs disagree on.
    """
    if len(url) > MAX_URL_CHARS or not _PLAIN.fullmatch(url):
        raise UrlNotAllowed(f"The address must be a plain http or https URL of at most {MAX_URL_CHARS} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", _PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        raise UrlNotAllowed("The address is not a valid URL") from None
    if port == 0:
        raise UrlNotAllowed("The address must name a port from 1 to 65535, or none")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise UrlNotAllowed("The address must name no user, and its host no escapes")
    address = _literal(host, parts.netloc)
    if address is None and (not _NAME.fullmatch(host) or _NUMBER.match(host.rpartition(".")[2])):
        raise UrlNotAllowed("The host of the address must be a name in ASCII, or an IP address in its usual form")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return OutboundTarget(parts.scheme, host, port, path, address)


def _literal(host: str, netloc: str) -> IpAddress | None:
    try:
        return IPv6Address(host) if netloc.startswith("[") else IPv4Address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class OutboundRules:
    """What the operator allows."""

    hosts: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()  #: that need not be public

    @classmethod
    def of(cls, settings: Settings) -> OutboundRules:
        """Return the rules of these settings."""
        networks = tuple(ipaddress.ip_network(one) for one in settings.outbound_networks)
        return cls(tuple(name.lower() for name in settings.outbound_hosts), networks)

    def check(self, url: str) -> OutboundTarget:
        """Take a URL apart and check its host, before anything is asked of a name server.

        Raises:
            UrlNotAllowed: as `parse`; or no host is allowed, or not this one.
        """
        if not self.hosts:
            raise UrlNotAllowed(
                "This server calls no addresses that clients name",
                suggestions=("Leave the address out, or ask the operator to set WAN22_OUTBOUND_HOSTS.",),
            )
        target = parse(url)
        if not any(_matches(allowed, target) for allowed in self.hosts):
            raise UrlNotAllowed("This server may not call that host")
        if target.address is not None:
            self.check_addresses((target.address,))
        return target

    def check_addresses(self, addresses: tuple[IpAddress, ...]) -> None:
        """Check where a host is. One address that is not allowed spoils all: a second look may get that one.

        Raises:
            UrlNotAllowed: there is none, or one is neither public nor in an allowed network.
        """
        if not addresses or not all(self._allows(one) for address in addresses for one in _faces(address)):
            raise UrlNotAllowed("The host of the address is not in a network that this server may call")

    def _allows(self, address: IpAddress) -> bool:
        if any(address in network for network in self.networks):
            return True
        if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
            return False
        public = address.is_global and not (address.is_multicast or address.is_reserved)
        return public and not any(address in network for network in _OF_CLOUDS)


def _matches(allowed: str, target: OutboundTarget) -> bool:
    name, colon, port = allowed.rpartition(":")
    if colon and port.isdigit() and (name.endswith("]") or ":" not in name):
        if int(port) != target.port:
            return False
        allowed = name
    allowed = allowed.strip("[]")
    if allowed.startswith("*."):
        return target.address is None and target.host.endswith(allowed[1:])
    return allowed in ("*", target.host)


def _faces(address: IpAddress) -> tuple[IpAddress, ...]:
    """Return every address that a packet to this one may end at."""
    if isinstance(address, IPv4Address):
        return (address,)
    inner = tuple(
        IPv4Address((int(address) >> shift) & 0xFFFF_FFFF) for network, shift in _EMBEDDING if address in network
    )
    return inner if address in _MAPPED else (address, *inner)
