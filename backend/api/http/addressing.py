"""Where this server is published: the prefix that a proxy adds to every path, and links that lead back through it.

Believes forwarded headers of trusted proxies only. Knows no route.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.core.access.tokens import Tokens
from backend.core.settings import ROOT_PATH, Settings

_MAX_PREFIX = 200


@dataclass(frozen=True, slots=True)
class Links:
    """Builds the addresses in answers to one client."""

    prefix: str = ""
    tokens: Tokens | None = None  #: of whoever is served; None on a server without keys

    def to(self, path: str) -> str:
        """Return the address of a path of this server."""
        return self.prefix + path

    def to_media(self, path: str) -> str:
        """Return the address of a picture or a video, for players that cannot send the key."""
        return self.prefix + path + ("" if self.tokens is None else self.tokens.signature(path))


_links: ContextVar[Links | None] = ContextVar("links", default=None)


@contextmanager
def links_signed_by(tokens: Tokens | None) -> Iterator[None]:
    """Let the links of answers carry signatures of these tokens while the block runs."""
    token = _links.set(Links(current_links().prefix, tokens))
    try:
        yield
    finally:
        _links.reset(token)


def current_links() -> Links:
    """Return the builder of links for the client of the current request; outside of one, links are plain paths."""
    return _links.get() or Links()


def route_path(scope: Scope) -> str:
    """Return the path without the prefix of the proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Addressing:
    """ASGI middleware that takes the prefix off every path and tolerates one trailing slash."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._prefix = settings.root_path
        self._trusted = TrustedProxies(settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection under its path."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        prefix, path = self._prefix_of(scope), scope["path"]
        if prefix and (path == prefix or path.startswith(prefix + "/")):
            path = path[len(prefix) :] or "/"  # a proxy that passes the prefix on
        if len(path) > 1 and path.endswith("/") and not path.endswith("//"):
            path = path[:-1]
        # By the rules of ASGI the path includes the root path.
        placed = {**scope, "root_path": prefix, "path": prefix + path}
        token = _links.set(Links(prefix))
        try:
            await self.app(placed, receive, send)
        finally:
            _links.reset(token)

    def _prefix_of(self, scope: Scope) -> str:
        """Return the prefix that the proxy names, or the operator's."""
        sent = Headers(scope=scope).get("x-forwarded-prefix", "").partition(",")[0].strip().rstrip("/")
        if sent and len(sent) <= _MAX_PREFIX and re.fullmatch(ROOT_PATH, sent) and self._trusted.has(scope):
            return sent
        return self._prefix


class TrustedProxies:
    """The addresses whose forwarded headers are believed."""

    def __init__(self, names: list[str]) -> None:
        self._all = "*" in names
        self._names = frozenset(names)
        self._networks = [network for name in names if (network := _network(name)) is not None]

    def has(self, scope: Scope) -> bool:
        """Whether a connection comes from a trusted proxy."""
        peer = (scope.get("client") or ("", 0))[0]
        if self._all or peer in self._names:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None
