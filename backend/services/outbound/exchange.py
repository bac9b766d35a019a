"""One HTTP request to a target and the head of its answer. Follows no redirect and unpacks nothing.

What the other side says beyond its status stays here: an error must not be a window into somebody's network.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, cast

from backend.core.errors.requests import UrlNotAllowed
from backend.services.outbound.connection import (
    Aborted,
    Allowance,
    Resolver,
    TooLarge,
    ask_name_server,
    connect,
)
from backend.services.outbound.targets import OutboundRules

#: Most bytes of an answer that are read; its status line and headers have to fit.
HEAD_BYTES: Final = 64 * 1024
#: Longest duration of an exchange, in seconds.
SECONDS: Final = 15.0


class Unanswered(Exception):
    """There was no usable answer; the text says why, without a word of the other side."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of an answer, and when it says that one may come again."""

    status: int
    retry_after: float | None = None  #: in seconds


class PinnedCaller:
    """Sends requests to addresses that the rules allow."""

    def __init__(
        self,
        rules: OutboundRules,
        *,
        resolve: Resolver = ask_name_server,
        seconds: float = SECONDS,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._seconds = seconds
        self._stopping = stopping

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body.

        Raises:
            UrlNotAllowed: its host may not be called; no name server was asked.
            Unanswered: the host is where this server may not call, there is no connection, or no answer within the
                limits.
            Aborted: this process is stopping.
        """
        target = self._rules.check(url)
        allowance = Allowance(self._seconds, HEAD_BYTES, self._stopping)
        try:
            connection = connect(target, self._rules, self._resolve, allowance)
        except UrlNotAllowed as error:  # a name server may answer otherwise the next time
            raise Unanswered(error.message) from None
        except ssl.SSLError:
            raise Unanswered("its encryption or its certificate is not accepted") from None
        except TimeoutError:
            raise Unanswered("no connection in time") from None
        except OSError:
            raise Unanswered("no connection") from None
        client = HTTPConnection(target.host, target.port)
        client.auto_open = 0  # it would connect anew by itself, to wherever the name leads then
        client.sock = cast(Any, connection)
        try:
            client.request("POST", target.path, body, {"Host": target.in_header, "Connection": "close", **headers})
            answer = client.getresponse()
            return Answer(answer.status, _seconds(answer.getheader("Retry-After")))
        except TimeoutError:
            raise Unanswered("no answer in time") from None
        except TooLarge:
            raise Unanswered("the headers of its answer are too large") from None
        except Aborted:
            raise
        except (OSError, HTTPException, ValueError):
            raise Unanswered("its answer breaks off, or is not HTTP") from None
        finally:
            connection.close()
            client.close()


def _seconds(text: str | None) -> float | None:
    """Read `Retry-After` where it is a number; a date is not worth a clock that may be wrong."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 7 else None
