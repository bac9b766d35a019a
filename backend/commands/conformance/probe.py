"""Calls to the server that is checked, and the videos that several checks share.

Sends plain HTTP as the packages of OpenAI do; knows nothing about any particular server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx2

#: Pause between two questions about a video where the server names none, in seconds; as in the packages.
_USUAL_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 5.0
#: How long to wait at the end for videos that are being stopped, in seconds.
_CLEANING_SECONDS: Final = 30.0
UNFINISHED: Final = frozenset({"queued", "in_progress"})


class Broken(Exception):
    """The server does not do what the check expects; the message says what it did."""


class NotChecked(Exception):
    """The check could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact about a server."""

    name: str  #: group and subject, such as `content.range`
    fact: str  #: what holds for a server that passes
    run: Callable[[Probe], None]  #: raises `Broken` or `NotChecked`


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the videos of the checks are like."""

    prompt: str = "a red circle moving right on a navy background"
    fields: dict[str, str] = field(default_factory=dict)  #: sent with every request for a video
    failed_video: str | None = None  #: id of a video that failed
    seconds: float = 600.0  #: how long a video may take

    def about(self, prompt: str) -> Wishes:
        """Return the same wishes for videos that show something else."""
        return replace(self, prompt=prompt)


class Probe:
    """A client of one server, with the video that all checks share."""

    def __init__(self, client: httpx2.Client, wishes: Wishes, pause: Callable[[float], None] = time.sleep) -> None:
        self.client = client
        self.wishes = wishes
        self._pause = pause
        self._made: list[str] = []
        self._first: dict[str, Any] | None = None
        self._followed: list[dict[str, Any]] = []

    def call(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """Send a request.

        Raises:
            Broken: no answer came.
        """
        try:
            return self.client.request(method, path, **how)
        except httpx2.HTTPError as error:
            raise Broken(f"{method} {path} got no answer: {type(error).__name__}") from error

    def post(self, fields: Mapping[str, str], headers: dict[str, str] | None = None) -> httpx2.Response:
        """Ask for a video with these fields alone, in a form, as the packages do even without a file."""
        answer = self.call("POST", "/videos", files={name: (None, fields[name]) for name in fields}, headers=headers)
        self.keep(answer)
        return answer

    def ask(self, changes: Mapping[str, str] | None = None, headers: dict[str, str] | None = None) -> httpx2.Response:
        """Ask for a video; one that is made is deleted at the end."""
        return self.post({"prompt": self.wishes.prompt, **self.wishes.fields, **(changes or {})}, headers)

    def keep(self, answer: httpx2.Response) -> None:
        """Remember a video that was made, to delete it at the end."""
        if answer.status_code < 300 and isinstance(video_id := body_of(answer).get("id"), str):
            self._made.append(video_id)

    def first(self) -> dict[str, Any]:
        """Return the answer to the first request for a video; made once."""
        if self._first is None:
            answer = self.ask()
            if answer.status_code not in (200, 201, 202):
                raise Broken(f"POST /videos answers {shown(answer)}")
            self._first = body_of(answer)
        return self._first

    def first_id(self) -> str:
        """Return the id of the first video."""
        video_id = self.first().get("id")
        if not isinstance(video_id, str):
            raise Broken("the answer to POST /videos has no id")
        return video_id

    def followed(self) -> list[dict[str, Any]]:
        """Return what the server said of the first video until it ended, the end last.

        Raises:
            Broken: it did not end in time, or not as completed.
        """
        if not self._followed:
            self._followed = self._follow(self.first_id())
        if self._followed[-1].get("status") != "completed":
            raise Broken(f"the video ended as {self._followed[-1].get('status')}: {self._followed[-1].get('error')}")
        return self._followed

    def finished(self) -> str:
        """Return the id of the first video, once it is completed."""
        try:
            self.followed()
        except Broken as error:
            raise NotChecked(f"needs a finished video: {error}") from error
        return self.first_id()

    def _follow(self, video_id: str) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        until = time.monotonic() + self.wishes.seconds
        while time.monotonic() < until:
            answer = self.call("GET", f"/videos/{video_id}")
            if answer.status_code != 200:
                raise Broken(f"GET /videos/{{id}} answers {shown(answer)}")
            seen.append(body_of(answer))
            if seen[-1].get("status") not in UNFINISHED:
                return seen
            named = answer.headers.get("openai-poll-after-ms", "")
            self._pause(min(_LONGEST_PAUSE, int(named) / 1000 if named.isdecimal() else _USUAL_PAUSE))
        raise Broken(f"the video did not end within {self.wishes.seconds:g} seconds")

    def clean_up(self) -> None:
        """Delete the videos of the checks, as far as the server does that."""
        until = time.monotonic() + _CLEANING_SECONDS
        for video_id in self._made:
            try:
                # 409: it is being stopped, and can be deleted then.
                while self.client.delete(f"/videos/{video_id}").status_code == 409 and time.monotonic() < until:
                    self._pause(_USUAL_PAUSE)
            except httpx2.HTTPError:
                return


def body_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the JSON object in an answer.

    Raises:
        Broken: there is none.
    """
    try:
        value = answer.json()
    except ValueError as error:
        raise Broken(f"the body is not JSON ({shown(answer)})") from error
    if not isinstance(value, dict):
        raise Broken(f"the body is not a JSON object ({shown(answer)})")
    return value


def shown(answer: httpx2.Response) -> str:
    """Return status and beginning of an answer, for a sentence."""
    text = answer.text if "json" in answer.headers.get("content-type", "") else answer.headers.get("content-type", "")
    return f"{answer.status_code} {text[:160]}".strip()


def expect(condition: object, otherwise: str) -> None:
    """Raise `Broken` unless the condition holds."""
    if not condition:
        raise Broken(otherwise)


def expect_error(answer: httpx2.Response, *statuses: int, param: str | None = None) -> dict[str, Any]:
    """Return the error in OpenAI's envelope.

    Raises:
        Broken: the status is another one, the envelope is not there, or the error does not name `param`.
    """
    expect(answer.status_code in statuses, f"expected {' or '.join(map(str, statuses))}, got {shown(answer)}")
    error = body_of(answer).get("error")
    if not isinstance(error, dict):
        raise Broken(f'there is no object "error" in {shown(answer)}')
    for name in ("message", "type", "param", "code"):
        expect(name in error, f'"error" has no {name}: {shown(answer)}')
    expect(isinstance(error["message"], str) and error["message"], "the message is empty")
    if param is not None:
        expect(error["param"] == param, f"param is {error['param']!r} instead of {param!r}")
    return error
