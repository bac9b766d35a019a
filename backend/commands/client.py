"""The command line's HTTP client: submit, follow, save, and what an id or an error answer means.

Everything goes through the public API, so what works here works for any other client.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies

import httpx2
import psutil

from backend.core.access.tokens import LOCAL_USER, SESSION_COOKIE, Tokens
from backend.core.domain import SHORT_ID
from backend.core.errors.base import Category, WanError
from backend.core.errors.generation import GenerationFailed
from backend.core.errors.lookups import OutputNotFound, TaskNotFound
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.errors.tree import kind_of
from backend.core.plain_words import nearest
from backend.core.settings import Settings
from backend.services.access.secret import known_secret, secret_for

#: Shortest time between two questions about a task, in seconds.
POLL_SECONDS = 0.15
EVENTS = "/api/v1/events"
PROGRESS_TOPIC = "generation_progress"
_READY_SECONDS = 2.0  # between questions whether a waiting task can be expected to start
START_TIMEOUT = 120.0  # seconds; the first start of a cold disk imports torch and loads a model
_FINISHED = {"completed", "failed", "cancelled"}
#: The word for the newest task or video.
LAST = "last"
_LISTED = 1000  # of the newest tasks or videos, among which a beginning of an id is looked up
_FULL_ID = 36  # characters


class ServerUnreachable(WanError):
    """No server answers."""

    code = "server_unreachable"
    category = Category.NETWORK
    retryable = True
    suggestions = ("Start one with `wan22 serve`.",)


#: For a clip to be sent and decoded.
UPLOAD_SECONDS = 300.0


class ApiClient:
    """The API calls of the command line; error answers become exceptions."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        temporary: bool = False,
        own: bool = False,
        find: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Prepare to call the server; nothing is sent yet.

        Without a key, the server of this user's `own` home is shown that the caller can read the home's secret.

        A `temporary` server ends with this command: nobody will mend a worker that cannot start. `find` returns the
        address of a server that was started again, perhaps on another port.

        Raises:
            BadSettings: the address is not one of HTTP, or a proxy variable for it cannot be used.
        """
        self._find = find
        headers = self._headers = {"Wan22-Model-Ids": "exact"}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        elif own and (secret := known_secret(settings.paths)) is not None:
            session = Tokens(LOCAL_USER, secret_for(LOCAL_USER, secret)).session()
            headers["Cookie"] = f"{SESSION_COOKIE}={session}"
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._temporary = temporary
        self._http = _open_client(self.url, headers)

    def _move_to(self, url: str) -> None:
        """Call another address from now on."""
        self._http.close()
        self.url, self._http = url, _open_client(url, self._headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON answer.

        Raises:
            ServerUnreachable: nothing answers at the address.
            WanError: the server refused; message and next steps are the server's own.
        """
        try:
            response = self._http.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise unreachable(self.url, error) from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success and body is not None:
            return body
        raise _refusal(self.url, response.status_code, body if isinstance(body, dict) else {})

    def task_id(self, text: str, *, unfinished: bool = False) -> str:
        """Return the id of the task that a user means: its beginning, or `last` for the newest.

        Raises:
            TaskNotFound: there is none.
            InvalidRequest: several ids begin like this.
        """
        tasks = self.call("GET", "/api/v1/queue", params={"limit": _LISTED})["tasks"]
        wanted = [task["id"] for task in tasks if not (unfinished and task["status"] in _FINISHED)]
        text = text.strip().lower()
        if text == LAST and tasks and not wanted:
            raise TaskNotFound("No task waits or runs", suggestions=("List the tasks with `wan22 queue`.",))
        if text != LAST and not any(one.startswith(text) for one in wanted):
            wanted = [task["id"] for task in tasks]
        return _one_id(text, wanted, TaskNotFound)

    def video_id(self, text: str) -> str:
        """Return the id of the video that a user means: its beginning, or `last` for the newest.

        Raises:
            OutputNotFound: there is none.
            InvalidRequest: several ids begin like this.
        """
        videos = self.call("GET", "/api/v1/outputs", params={"limit": _LISTED})["videos"]
        return _one_id(text, [video["id"] for video in videos], OutputNotFound)

    def not_ready(self) -> str | None:
        """Return why the server cannot run tasks, in its own words; None when it can or cannot be asked."""
        with suppress(WanError):
            components = self.call("GET", "/api/v1/models/integration/status")["components"]
            faults = [one["message"] for one in components.values() if one["status"] in ("failed", "not_started")]
            if faults and not self._is_ready():
                return "; ".join(faults)
        return None

    def _is_ready(self) -> bool:
        try:
            return self._http.get("/ready").is_success
        except httpx2.HTTPError:
            return False

    def submit(self, fields: dict[str, Any], **images: Path | None) -> dict[str, Any]:
        """Queue a task; fields that are None take the model's defaults.

        Args:
            fields: the fields of the API.
            images: files to send with it, by field (`image`, `end_image`).

        Raises:
            BadSettings: a file cannot be read.
            WanError: as `call`.
        """
        return self._post("/api/v1/generation/submit", fields, images)

    def extend(self, output_id: str, fields: dict[str, Any], **images: Path | None) -> dict[str, Any]:
        """Queue a video that continues this one. Raises like `submit`."""
        return self._post(f"/api/v1/outputs/{quote(output_id, safe='')}/extend", fields, images)

    def redecode(self, output_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Queue another file from the kept latents of this video. Raises like `submit`."""
        return self._post(f"/api/v1/outputs/{quote(output_id, safe='')}/redecode", fields, {})

    def keep_image(self, image: Path) -> str:
        """Upload an image and return its id. Raises like `submit`."""
        return str(self._post("/api/v1/inputs", {}, {"image": image})["id"])

    def send_clip(self, path: Path, *, keep: bool) -> dict[str, Any]:
        """Upload a clip, into the gallery where it is to be kept; return what the server says of it.

        Raises:
            BadSettings: the file cannot be read.
            WanError: as `call`.
        """
        try:
            with path.open("rb") as file:
                where = "/api/v1/outputs/import" if keep else "/api/v1/outputs/inspect"
                answer: dict[str, Any] = self.call(
                    "POST", where, files={"file": (path.name, file)}, timeout=UPLOAD_SECONDS
                )
        except OSError as error:
            raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
        return answer

    def has_image(self, image_id: str) -> bool:
        """Whether the server has an image with this id.

        Raises:
            WanError: the server cannot say.
        """
        try:
            with self._http.stream("GET", f"/api/v1/inputs/{quote(image_id, safe='')}") as response:
                if response.status_code not in (httpx2.codes.OK, httpx2.codes.NOT_FOUND):
                    raise WanError(f"{self.url} answered {response.status_code}")
                return response.is_success
        except httpx2.HTTPError as error:
            raise unreachable(self.url, error) from error

    def _post(self, path: str, fields: dict[str, Any], images: dict[str, Path | None]) -> dict[str, Any]:
        body = {key: value for key, value in fields.items() if value is not None}
        files = {field: (image.name, _read(image)) for field, image in images.items() if image is not None}
        options = {"data": _as_form(body), "files": files} if files else {"json": body}
        answer: dict[str, Any] = self.call("POST", path, **options)
        return answer

    def follow(self, task_id: str, notify: Callable[[str], None] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the task at each change until it ends; wait for a server that restarts.

        `notify` gets a sentence when nothing can be expected to happen: the server is gone, or no worker runs.

        Raises:
            ServerUnreachable: the server has been gone for minutes.
            GenerationFailed: the worker of a temporary server cannot start.
        """
        asked, told = 0.0, ""

        def tell(sentence: str) -> None:
            nonlocal told
            if notify is not None and sentence != told:
                notify(sentence)
            told = sentence

        for task in self.states(f"/api/v1/queue/{task_id}", (PROGRESS_TOPIC,), about=task_id, notify=tell):
            yield task
            if task["status"] in _FINISHED:
                return
            if task["status"] == "pending" and time.monotonic() - asked > _READY_SECONDS:
                asked = time.monotonic()
                if (reason := self.not_ready()) is not None:
                    if self._temporary and not task["attempt"]:
                        raise cannot_generate(reason)
                    tell(f"{reason}. The task is safe and waits; Ctrl-C cancels it.")

    def states(
        self, path: str, topics: Sequence[str], *, about: str = "", notify: Callable[[str], None] = lambda _: None
    ) -> Iterator[dict[str, Any]]:
        """Yield what a route answers: now, at each message of these topics, and every few seconds.

        `about` is a text that messages have to contain. Waits for a server that restarts, and tells `notify` so.

        Raises:
            ServerUnreachable: the server has been gone for minutes.
        """
        lost_since: float | None = None
        with closing(self._news(topics, about)) as news:
            for _ in news:
                try:
                    answer: dict[str, Any] = self.call("GET", path)
                except ServerUnreachable:
                    if lost_since is None:
                        lost_since = time.monotonic()
                        notify("The server is gone. The task is safe; waiting for the server to come back.")
                    elif time.monotonic() - lost_since > START_TIMEOUT:
                        raise
                    if (found := self._find()) not in (None, self.url):
                        self._move_to(str(found))
                else:
                    lost_since = None
                    yield answer

    def _news(self, topics: Sequence[str], about: str) -> Generator[None]:
        """Yield when something may have happened; a stream that breaks off is continued after the last event.

        Where there is no stream (an earlier server, no free place), this yields at an interval instead.
        """
        last, at = "", 0.0
        timeout = httpx2.Timeout(30.0, read=_READY_SECONDS)
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            query = {"topics": ",".join(topics)}
            with (
                suppress(httpx2.HTTPError, httpx2.StreamError),
                self._http.stream("GET", EVENTS, params=query, headers=headers, timeout=timeout) as stream,
            ):
                for line in stream.iter_lines() if stream.is_success else ():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        last = value
                    elif name == "data" and about in value and _says(value, since=at):
                        at = time.monotonic()
                        yield
            at = time.monotonic()
            yield
            time.sleep(POLL_SECONDS)

    def save_video(self, task_id: str, target: Path) -> None:
        """Download the finished video; the file appears complete or not at all.

        Raises:
            ServerUnreachable: the download broke off; the server still has the video.
            BadSettings: the file cannot be written.
        """
        part = target.with_name(target.name + ".part")
        try:
            with self._http.stream("GET", f"/api/v1/outputs/{task_id}/download") as response:
                response.raise_for_status()
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(target)
        except httpx2.HTTPError as error:
            raise ServerUnreachable(
                f"The video {task_id[:8]} could not be downloaded completely; the server still has it",
                suggestions=(f"Save it with `wan22 show {task_id[:8]} -o FILE.mp4`.",),
            ) from error
        except OSError as error:
            raise BadSettings(f"{target} cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)


def _says(text: str, *, since: float) -> bool:
    """Whether a message is a reason to look again, `since` the last look: fast steps are not looked at one by one."""
    ended = any(f'"status": "{status}"' in text for status in _FINISHED)
    return ended or time.monotonic() - since >= POLL_SECONDS


def _as_form(body: dict[str, Any]) -> dict[str, str]:
    """Encode the fields as form text; lists and booleans as JSON."""
    return {
        key: json.dumps(value) if isinstance(value, list | dict | bool) else str(value) for key, value in body.items()
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error


def _one_id(text: str, ids: list[str], missing: type[WanError]) -> str:
    """Find the one id that begins with this text; the newest is first."""
    text = text.strip().lower()
    if text == LAST:
        if not ids:
            raise missing("There is none yet", suggestions=("Make one with `wan22 generate`.",))
        return ids[0]
    begun = [one for one in ids if one.startswith(text)] if text else []
    if text in begun or len(begun) == 1:
        return text if text in begun else begun[0]
    if begun:
        some = ", ".join(one[: max(SHORT_ID, len(text) + 2)] for one in begun[:4])
        raise InvalidRequest(
            f"{len(begun)} ids begin with {text}: {some}{' …' if len(begun) > 4 else ''}",
            suggestions=("Write more of the id.",),
        )
    if len(text) == _FULL_ID:
        return text  # perhaps older than all that are listed
    close = nearest(text, [one[: len(text)] for one in ids]) if text else None
    raise missing(suggestions=None if close is None else (f"Did you mean {close}?",))


def unreachable(url: str, error: httpx2.HTTPError) -> ServerUnreachable:
    """Describe a request that got no answer, in plain words."""
    if isinstance(error, httpx2.ProxyError):
        return ServerUnreachable(
            f"The proxy in the environment does not reach {url}",
            suggestions=("Correct HTTP_PROXY and HTTPS_PROXY, or add the server's name to NO_PROXY.",),
        )
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError):
        steps = ["Start one with `wan22 serve`, or check the address in --server."]
        if not is_this_machine(httpx2.URL(url).host) and getproxies():
            steps.append("A proxy is set in the environment; NO_PROXY names the servers that are reached without it.")
        return ServerUnreachable(f"No server answers at {url}", suggestions=tuple(steps))
    if isinstance(error, httpx2.TimeoutException):
        return ServerUnreachable(f"The server at {url} did not answer in time", suggestions=("Try again.",))
    return ServerUnreachable(f"The connection to {url} broke off", suggestions=("Try again.",))


def _refusal(url: str, status: int, body: dict[str, Any]) -> WanError:
    """Turn an error answer into the exception that has its code here."""
    message = body.get("message")
    if not isinstance(message, str):
        return ServerUnreachable(
            f"{url} answers, but not like a server of wan22 (status {status})",
            suggestions=("Check the address in --server.",),
        )
    steps = tuple(str(step) for step in body.get("suggestions") or ())
    kind = kind_of(str(body.get("error")))
    actions = tuple(step for step in body.get("actions") or () if isinstance(step, dict))
    return kind(message, suggestions=steps, details=body.get("details"), actions=actions)


def _open_client(url: str, headers: dict[str, str]) -> httpx2.Client:
    try:
        host = httpx2.URL(url).host
        if not url.startswith(("http://", "https://")) or not host:
            raise httpx2.InvalidURL(url)
        try:
            host.encode("idna")  # as the system does before it asks for the address: no empty or overlong labels
        except UnicodeError:
            raise httpx2.InvalidURL(url) from None
        return httpx2.Client(base_url=url, headers=headers, timeout=30.0, trust_env=not is_this_machine(host))
    except httpx2.InvalidURL:
        raise BadSettings(
            f"{url} is not the address of a server", suggestions=("Write it like http://192.168.1.5:8000.",)
        ) from None
    except (ImportError, ValueError) as error:  # a SOCKS proxy, or a variable that is no address
        raise BadSettings(
            "A proxy variable of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY) cannot be used",
            suggestions=("Name an HTTP proxy in it, or add the server's name to NO_PROXY.",),
        ) from error


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is this machine, which no proxy can reach better."""
    name = host.strip("[]").rstrip(".").lower()
    if name in ("localhost", socket.gethostname().lower()) or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    own = {one.address.partition("%")[0] for card in psutil.net_if_addrs().values() for one in card}
    return str(address) in own


def cannot_generate(reason: str) -> GenerationFailed:
    """Describe a server whose worker cannot start."""
    return GenerationFailed(f"The video cannot be generated: {reason}", suggestions=("Run `wan22 doctor`.",))
