"""Whatever goes wrong ends as a sentence in the product's words, a next step and an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
import typer.main
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backend.cli import app
from backend.commands.client import ApiClient, is_this_machine
from backend.commands.clips import Extras, fetch_clips
from backend.commands.console.advice import steps_in_terminal
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.lookups import TaskNotFound
from backend.core.errors.requests import UnknownModel
from backend.core.errors.tree import all_kinds
from backend.core.settings import load_settings
from backend.services.error_handler import GenerationErrorHandler
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.commands.support import PROMPT, invoke, wan22
from tests.support.server import QUICK, LiveServer

DEAD_PROXIES = [
    {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"all_proxy": "socks5h://proxy.example:1080", "HTTPS_PROXY": "http://proxy.example:3128"},
    {"HTTP_PROXY": "not an address", "ALL_PROXY": "gopher://x"},
    {"NO_PROXY": "[::1", "HTTP_PROXY": "http://127.0.0.1:9"},
]
#: How libraries speak; none of it may reach a user.
LIBRARY_SPEECH = ("Errno", "Input should", "Traceback", "httpx", "pydantic", "NoneType", "valid integer", " at 0x")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its name."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [((*name, one), found) for one, found in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize("proxies", DEAD_PROXIES, ids=str)
def test_a_server_on_this_machine_is_reached_past_every_proxy_variable(
    idle: LiveServer, monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str]
) -> None:
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    for arguments in (
        ["queue"],
        ["queue", "--server", idle.url],
        ["list", "--server", idle.url.removeprefix("http://")],
    ):
        done = invoke(*arguments, home=idle.home)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "me.localhost", "[::1]", "0.0.0.0"]
)
def test_names_of_this_machine(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize("host", ["example.com", "192.0.2.7", "localhost.example.com", "2001:db8::1"])
def test_names_of_other_machines(host: str) -> None:
    assert not is_this_machine(host)


def test_a_server_elsewhere_is_asked_through_the_proxy_and_a_proxy_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    done = invoke("queue", "--server", "http://192.0.2.7:8000", home=tmp_path)
    assert done.returncode == 1
    assert "proxy" in done.stderr
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("HTTP_PROXY")
    done = invoke("queue", "--server", "http://192.0.2.7:8000", home=tmp_path)
    assert done.returncode == 1
    assert "ALL_PROXY" in done.stderr


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """Run a server of another program, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>router</html>"), (404, b"no"), (500, b"[1]"), (502, b"")])
def test_another_program_at_the_address_is_a_sentence(tmp_path: Path, status: int, body: bytes) -> None:
    with stranger(status, body) as url:
        done = invoke("queue", "--server", url, home=tmp_path)
    assert done.returncode == 1
    assert "not like a server of wan22" in done.stderr


@pytest.mark.parametrize("address", ["foo::bar", "ftp://host", "http://", "http://[::1", "http://host:port"])
def test_what_is_no_address_is_a_sentence(tmp_path: Path, address: str) -> None:
    done = invoke("queue", "--server", address, home=tmp_path)
    assert done.returncode == 1
    assert "is not the address of a server" in done.stderr


def test_every_option_with_a_fraction_refuses_what_is_no_number() -> None:
    checked = 0
    for name, command in commands():
        for option in command.params:
            if getattr(option.type_descriptor, "annotation", None) is not float or option.param_type_name != "option":
                continue
            checked += 1
            for value in ("nan", "inf", "-inf", "1e999"):
                done = invoke(*name, f"{option.opts[0]}={value}", "x")
                assert done.returncode == 2, (name, option.opts, value, done.stderr)
                assert option.opts[0] in done.stderr
                assert "must" in done.stderr
    assert checked >= 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "x", "--steps", "many"], "--steps must be a whole number"),
        (["generate", "x", "--variations", "99"], "--variations must be at most 16"),
        (["generate", "x", "--fps", "fast"], "--fps must be a number"),
        (["queue", "cancel"], "Missing argument"),
        (["genrate", "x"], "Did you mean 'generate'"),
        (["list", "--limit", "0"], "must be at least 1"),
    ],
    ids=str,
)
def test_a_wrong_call_is_a_sentence_and_names_the_help(arguments: list[str], said: str) -> None:
    done = invoke(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--help` lists what it takes" in done.stderr
    assert not any(speech in done.stderr for speech in LIBRARY_SPEECH)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "4000x4000"], "nearest size"),
        (["--steps", "1000"], "between 1 and 100"),
        (["--model", "tny-t2v-a14b"], "Did you mean tiny-t2v-a14b?"),
        (["--model", "tiny-i2v-a14b"], "--image"),
        (["--seed", "9" * 30], "between 0 and"),
        (["--frames", "-4"], "rames"),
        (["-o", "clip.gif"], "--gif"),
        (["-o", "x" * 300], "too long"),
    ],
    ids=str,
)
def test_what_the_model_cannot_make_is_refused_before_a_server_starts(
    tmp_path: Path, options: list[str], said: str
) -> None:
    home = tmp_path / "home"
    done = invoke("generate", PROMPT, *options, home=home)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert not (home / "logs" / "server.log").exists()
    assert not any(speech in done.stderr for speech in LIBRARY_SPEECH)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"WAN22_DEVICE": "gpu"}, "WAN22_DEVICE must be auto, cpu, cuda or cuda:N"),
        ({"WAN22_PORT": "x"}, "WAN22_PORT must be a whole number"),
        ({"WAN22_PORT": "70000"}, "WAN22_PORT must be at most 65535"),
        ({"WAN22_WORKER": "maybe"}, "WAN22_WORKER must be true or false"),
        ({"WAN22_CORS_ORIGINS": "here"}, "WAN22_CORS_ORIGINS must be a JSON list"),
        ({"WAN22_OOM_POLICY": "hope"}, "WAN22_OOM_POLICY must be none, quality or speed"),
        ({"WAN22_HOME": "~nobody-at-all/x"}, "WAN22_HOME"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_at_the_start_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    done = invoke("serve", "--port", "0") if "WAN22_PORT" not in values else invoke("queue")
    assert done.returncode == 1
    assert said in done.stderr
    assert not any(speech in done.stderr for speech in LIBRARY_SPEECH)


def test_with_json_an_error_is_for_programs_too(tmp_path: Path) -> None:
    done = invoke("generate", PROMPT, "--model", "tny-t2v-a14b", "--json", home=tmp_path / "home")
    assert done.returncode == 1
    error = json.loads(done.stderr.splitlines()[-1])
    assert (error["error"], error["category"], error["retryable"]) == ("unknown_model", "input_validation", False)
    assert error["actions"] == [{"action": "resubmit", "changes": {"model_type": "tiny-t2v-a14b"}}]
    plain = invoke("generate", PROMPT, "--model", "tny-t2v-a14b", home=tmp_path / "home")
    assert '{"error"' not in plain.stderr


def test_a_failed_task_keeps_its_code_and_actions_in_a_terminal(idle: LiveServer) -> None:
    task_id = idle.client.post("/api/v1/generation/submit", json=QUICK).json()["task_id"]
    settings = load_settings(home=idle.home)
    with closing(Database(settings.database, checkpointer=False)) as database:
        tasks = TaskStore(database)
        task = tasks.claim("host:1:1:test", 60.0)
        assert task is not None
        error = GenerationErrorHandler("host:1:1:test").explain(MemoryError(), task)
        tasks.fail(task.id, str(task.lease_token), error)
    fewer = {"action": "resubmit", "changes": {"num_frames": 1}}
    done = invoke("queue", "--json", home=idle.home)
    listed = next(task for task in json.loads(done.stdout) if task["id"] == task_id)
    assert (listed["error_category"], listed["actions"]) == ("vram_memory", [fewer])
    client = ApiClient(idle.url, settings)
    with pytest.raises(OutOfMemory) as caught:
        fetch_clips(client, {"task_id": task_id}, None, Extras(as_json=True))
    client.close()
    assert caught.value.actions == (fewer,)


def test_a_user_without_a_home_folder_is_told_what_to_set() -> None:
    program = "import pwd, sys\npwd.getpwuid = lambda _: (_ for _ in ()).throw(KeyError('no such user'))\n"
    program += "sys.argv = ['wan22', 'queue']\nfrom backend.cli import main\nmain()\n"
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "WAN22_HOME")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1
    assert "Set WAN22_HOME" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(28, "No space left on device", "x"), MemoryError()])
def test_an_exception_that_nobody_foresaw_is_a_sentence_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("backend.commands.gallery.any_server", fail)
    (tmp_path / "logs").mkdir()
    done = invoke("list", home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    kept = [path.read_text() for path in (tmp_path / "logs").iterdir()]
    assert [("Traceback" in text, "boom" in text) for text in kept] == ([(True, True)] if "boom" in str(error) else [])


def test_ctrl_c_says_cancelled_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backend.commands.gallery.any_server", stop)
    done = invoke("list", home=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Cancelled.")


def test_no_error_advises_a_call_of_the_api_in_a_terminal() -> None:
    kinds = list(all_kinds())
    assert len(kinds) > 40
    for kind in kinds:
        for step in steps_in_terminal(kind()):
            assert not any(speech in step for speech in ("GET ", "POST ", "/api/", "`image`", "keep_latents`")), kind


def test_an_answer_of_the_server_keeps_its_kind(idle: LiveServer) -> None:
    client = ApiClient(idle.url, load_settings())
    with pytest.raises(TaskNotFound):
        client.call("GET", "/api/v1/queue/no-such-task")
    with pytest.raises(UnknownModel):
        client.submit({"prompt": "x", "model_type": "T9V"})
    client.close()


def test_a_worker_that_cannot_start_is_said_at_once(tmp_path: Path) -> None:
    env = {"WAN22_DEVICE": "cuda:99", "WAN22_RESTART_BACKOFF_SECONDS": "20"}
    done = wan22("generate", PROMPT, "-o", str(tmp_path / "clip.mp4"), home=tmp_path / "home", env=env)
    assert done.returncode == 1
    assert "cuda:99" in " ".join(done.stderr.split())
    assert "cannot be generated" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_waiting_task_says_that_no_worker_runs(idle: LiveServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backend.cli", "generate", "a take of nobody", "--server", idle.url]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "x.mp4")], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = ""
        while "The task is safe" not in told:
            line = next(process.stderr)
            told += f"{line.strip()} "
        assert "No worker is connected: tasks wait until one is started with `wan22 worker`" in told
    finally:
        process.kill()
        process.communicate()
    (task,) = [
        task for task in idle.client.get("/api/v1/queue").json()["tasks"] if task["prompt"] == "a take of nobody"
    ]
    assert task["status"] == "pending"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1).filter(lambda text: "\0" not in text and not text.startswith("-")))
@example(".")
@example("http://" + "a" * 64)
@example("http://a..b")
def test_any_text_as_an_argument_is_answered_with_a_sentence(tmp_path: Path, text: str) -> None:
    for arguments in (["plan", text], ["loras", "show", text], ["queue", "--server", text], ["replay", text]):
        done = invoke(*arguments, home=tmp_path)
        assert done.returncode in (0, 1, 2), (arguments, done.stderr)
        assert "unexpected" not in done.stderr, (arguments, done.stderr)


def test_a_server_that_is_gone_is_waited_for_and_that_is_said_once(
    idle: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ApiClient(idle.url, load_settings())
    task_id, told = idle.submit(), list[str]()
    answers = iter([True, False, False, True])

    def request(method: str, path: str, **options: Any) -> Any:
        if not next(answers, True):
            raise httpx2.ConnectError("refused")
        return httpx2.request(method, idle.url + path, **options)

    monkeypatch.setattr(client._http, "request", request)
    monkeypatch.setattr(client, "not_ready", lambda: None)
    states = client.follow(task_id, told.append)
    assert [next(states)["status"], next(states)["status"]] == ["pending", "pending"]
    assert told == ["The server is gone. The task is safe; waiting for the server to come back."]
    client.close()


def test_a_server_that_comes_back_on_another_port_is_found_again(idle: LiveServer) -> None:
    task_id = idle.submit()
    client = ApiClient("http://127.0.0.1:9", load_settings(), find=lambda: idle.url)
    assert next(client.follow(task_id))["id"] == task_id
    client.close()
