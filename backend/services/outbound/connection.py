"""One connection to a target: resolved once, every address checked, then connected to the address itself.

Time and bytes are bounded over the whole exchange, the name server's answer included, and not for each read: a receiver
that sends a byte a second gets no more time than any other.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final

from backend.services.outbound.targets import IpAddress, OutboundRules, OutboundTarget

#: Most addresses of a host that are tried.
_TRIES: Final = 3
#: How often a wait checks whether this process is stopping, in seconds.
_CHECK_SECONDS: Final = 0.25

#: Returns the addresses of a host; raises OSError where there are none.
Resolver = Callable[[str, int], tuple[IpAddress, ...]]


class TooLarge(Exception):
    """The other side sent more than is read."""


class Aborted(Exception):
    """This process is stopping."""


def ask_name_server(host: str, port: int) -> tuple[IpAddress, ...]:
    """Return the addresses of a host as the system finds them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class Allowance:
    """The seconds and bytes that are left for one exchange."""

    def __init__(self, seconds: float, size: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self._ends = time.monotonic() + seconds
        self._left = size
        self._stopping = stopping

    def wait(self) -> float:
        """Return how long the next wait may take, in seconds.

        Raises:
            TimeoutError: the time is up.
            Aborted: the process is stopping.
        """
        if self._stopping():
            raise Aborted
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, _CHECK_SECONDS)

    @property
    def seconds(self) -> float:
        """The time that is left; raises as `wait`."""
        self.wait()
        return max(self._ends - time.monotonic(), 0.01)

    def take(self, count: int) -> None:
        """Count bytes that were received.

        Raises:
            TooLarge: there were too many.
        """
        self._left -= count
        if self._left < 0:
            raise TooLarge


class PinnedConnection:
    """A connected socket in the form that `http.client` uses."""

    def __init__(self, connected: socket.socket, allowance: Allowance) -> None:
        self._socket = connected
        self._allowance = allowance

    def sendall(self, data: bytes) -> None:
        """Send everything within the time that is left."""
        self._socket.settimeout(self._allowance.seconds)
        self._socket.sendall(data)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """Return a reader that keeps to the allowance."""
        return io.BufferedReader(_BoundedReader(self._socket, self._allowance))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class _BoundedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, allowance: Allowance) -> None:
        self._socket = connected
        self._allowance = allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._socket.settimeout(self._allowance.wait())
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError:
                continue
            self._allowance.take(count)
            return count


def _resolved(target: OutboundTarget, resolve: Resolver, allowance: Allowance) -> tuple[IpAddress, ...]:
    """Ask the name server, in a thread that is left behind when the time is up: the system's call has no limit."""
    answer: Future[tuple[IpAddress, ...]] = Future()

    def ask() -> None:
        try:
            answer.set_result(resolve(target.host, target.port))
        except (OSError, UnicodeError, ValueError) as error:
            answer.set_exception(OSError(str(error)))

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    while not answer.done():
        wait([answer], allowance.wait())
    return answer.result()


def connect(target: OutboundTarget, rules: OutboundRules, resolve: Resolver, allowance: Allowance) -> PinnedConnection:
    """Connect to a target.

    Raises:
        UrlNotAllowed: an address of the host is not allowed; nothing was connected.
        OSError: there is no address, no connection, or no encryption that can be trusted.
        Aborted: this process is stopping.
    """
    addresses = (target.address,) if target.address is not None else _resolved(target, resolve, allowance)
    rules.check_addresses(addresses)
    fault: OSError = OSError("no address")
    for address in addresses[:_TRIES]:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(allowance.seconds / _TRIES)
            connected.connect((str(address), target.port))
            if target.scheme == "https":
                connected.settimeout(allowance.seconds)
                connected = ssl.create_default_context().wrap_socket(connected, server_hostname=target.host)
        except OSError as error:
            connected.close()
            fault = error
            continue
        except BaseException:
            connected.close()
            raise
        return PinnedConnection(connected, allowance)
    raise fault
