"""API keys: what each may do and see, over every door, and how soon one that was revoked is shut out."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from backend.api.http.gate import PUBLIC_PATHS
from backend.api.http.scopes import needed_scope
from backend.core.access.caller import ANYBODY, Caller, KeyLimits, Scope, acting_as
from backend.core.access.text import draw_key
from backend.core.domain import utcnow
from backend.models.lora.library import EMBEDDED_LORAS
from backend.services.access import ring
from backend.store.access import keys as stored
from tests.api.support import GOOD, SOCKET, SUBMIT, TINY, Played, Served, assert_error, make_png

READERS = ("GET", "HEAD", "OPTIONS")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def make(served: Played, name: str, *scopes: Scope, days: float | None = None, **limits: Any) -> dict[str, str]:
    """Store a key and return the header that brings it."""
    drawn = draw_key()
    seconds = None if days is None else days * 86_400
    served.services.key_store.create(drawn, name, scopes, KeyLimits(**limits), seconds)
    served.services.keys.refresh()
    return {"Authorization": f"Bearer {drawn.text}"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One app with a key of each kind."""
    served = Served(tmp_path_factory.mktemp("keyed") / "home")
    yield served
    served.client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def bearers(keyed: Served) -> dict[str, dict[str, str]]:
    kinds = {"reader": Scope.READ, "anna": Scope.GENERATE, "bert": Scope.GENERATE, "stock": Scope.MODELS}
    made = {name: make(keyed, name, scope) for name, scope in kinds.items()}
    return made | {"boss": make(keyed, "boss", Scope.ADMIN), "all": make(keyed, "all", Scope.GENERATE, Scope.MODELS)}


def test_a_key_that_lacks_the_scope_is_refused_at_every_door(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    before = keyed.services.tasks.counts()
    refused = 0
    for template, methods in keyed.paths().items():
        path = re.sub(r"\{[^}]*\}", "x", template)
        for method in methods:
            needed = needed_scope(method, path)
            if needed is Scope.READ or path in PUBLIC_PATHS:
                continue
            for name, has in (("reader", Scope.READ), ("anna", Scope.GENERATE), ("stock", Scope.MODELS)):
                if has is not needed:
                    response = keyed.client.request(method, path, headers=bearers[name])
                    assert response.status_code == 403, (method, path, name)
                    refused += 1
                    if method != "HEAD":
                        assert_error(response, 403, "scope_missing")
    assert refused > 100
    assert keyed.services.tasks.counts() == before


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_changes_no_method(keyed: Served, bearers: dict[str, dict[str, str]], header: str) -> None:
    sent = bearers["reader"] | {header: "GET"}
    assert_error(keyed.client.post(SUBMIT, json=GOOD, headers=sent), 403, "scope_missing")
    assert_error(keyed.client.post("/generation/submit", json=GOOD, headers=sent, params={"_method": "GET"}), 403)


def test_a_key_reads_and_does_what_it_may(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    client = keyed.client
    assert client.get("/api/v1/system/health", headers=bearers["reader"]).status_code == 200
    session = client.get("/api/v1/session", headers=bearers["reader"]).json()
    assert session["name"] == "reader"
    assert session["scopes"] == ["read"]
    assert session["needs_key"] is True
    assert client.get("/api/v1/keys", headers=bearers["boss"]).status_code == 200
    assert client.get("/api/v1/session", headers=bearers["boss"]).json()["scopes"] == [*Scope]
    # What no line of the table names is for admins.
    assert_error(client.get("/nowhere", headers=bearers["all"]), 403, "scope_missing")
    assert_error(client.get("/nowhere", headers=bearers["boss"]), 404, "not_found")


def test_one_place_for_the_key(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    good = bearers["boss"]["Authorization"]
    key = good.removeprefix("Bearer ")
    wrong: list[Any] = [
        {"x-api-key": key},
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"Authorization": f"Bearer\u00a0{key}".encode("latin-1")},
        {"Authorization": f"Bearer \u00a0{key}".encode("latin-1")},
        {"Authorization": f"Bearer {key}\u0085".encode("latin-1")},
        {"Authorization": f"Bearer {key},{key}"},
        [("Authorization", good), ("Authorization", good)],
        [("Authorization", good), ("Authorization", "Bearer wrong")],
        {"Cookie": f"wan22_session={key}"},
        {"Cookie": f"api_key={key}"},
    ]
    for headers in wrong:
        assert_error(keyed.client.get("/api/v1/queue", headers=headers), 401, "unauthorized")
    for name in ("api_key", "key", "token", "access_token"):
        assert_error(keyed.client.get("/api/v1/queue", params={name: key}), 401)
    # A wrong key is not saved by a session beside it.
    cookie = keyed.client.post("/api/v1/session", headers=bearers["boss"]).headers["set-cookie"].partition(";")[0]
    keyed.client.cookies.clear()
    assert keyed.client.get("/api/v1/queue", headers={"Cookie": cookie}).status_code == 200
    assert_error(keyed.client.get("/api/v1/queue", headers={"Cookie": cookie, "Authorization": "Bearer wrong"}), 401)


def test_keys_are_made_and_revoked_over_the_api(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    client, boss = keyed.client, bearers["boss"]
    body = {"name": "script", "scopes": ["generate"], "expires_in_days": 1, "gpu_seconds_per_day": 60}
    made = client.post("/api/v1/keys", json=body, headers=boss).json()
    bearer = {"Authorization": f"Bearer {made['key']}"}
    assert client.get("/api/v1/queue", headers=bearer).status_code == 200
    assert_error(client.post("/api/v1/keys", json=body, headers=boss), 409, "key_name_taken")
    listed = client.get("/api/v1/keys", headers=boss)
    assert made["key"] not in listed.text
    assert [one["state"] for one in listed.json()["keys"] if one["id"] == made["id"]] == ["valid"]
    for wrong in ({"scopes": []}, {"scopes": ["root"]}, {"name": "a\u202eb"}, {"name": " "}, {"expires_in_days": -1}):
        assert_error(client.post("/api/v1/keys", json=body | {"name": "other"} | wrong, headers=boss), 422)
    with keyed.services.key_store._database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert made["key"].rpartition("_")[2] not in str(rows)
    assert client.delete(f"/api/v1/keys/{made['id']}", headers=boss).json()["state"] == "revoked"
    assert client.delete(f"/api/v1/keys/{made['id']}", headers=boss).status_code == 200
    assert_error(client.get("/api/v1/queue", headers=bearer), 401)
    assert_error(client.delete("/api/v1/keys/none", headers=boss), 404, "key_not_found")


def test_a_key_expires(keyed: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = make(keyed, "brief", Scope.READ, days=1)
    assert keyed.client.get("/api/v1/queue", headers=bearer).status_code == 200
    monkeypatch.setattr(stored, "utcnow", lambda: utcnow() + timedelta(days=1, seconds=1))
    assert_error(keyed.client.get("/api/v1/queue", headers=bearer), 401)


def test_a_key_made_by_another_process_counts_at_once(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    drawn = draw_key()
    keyed.services.key_store.create(drawn, "from the command line", [Scope.READ], KeyLimits())
    sent = {"Authorization": f"Bearer {drawn.text}"}
    assert keyed.client.get("/api/v1/queue", headers=sent).status_code == 200


def revoke(served: Played, name: str) -> None:
    """Revoke a key as another process would: the server has to notice."""
    (key,) = [key for key in served.services.key_store.all() if key.name == name and key.state == "valid"]
    served.services.key_store.revoke(key.id)


def test_a_revoked_key_loses_its_socket_and_its_session(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    bearer = make(keyed, "guest", Scope.READ)
    cookie = keyed.client.post("/api/v1/session", headers=bearer).headers["set-cookie"].partition(";")[0]
    keyed.client.cookies.clear()
    with (
        keyed.client.websocket_connect(SOCKET, headers=bearer) as first,
        keyed.client.websocket_connect("ws://127.0.0.1:8000/api/v1/ws", headers={"Cookie": cookie}) as second,
    ):
        assert first.receive_json()["type"] == second.receive_json()["type"] == "connection_established"
        began = time.monotonic()
        revoke(keyed, "guest")
        for socket in (first, second):
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert closed.value.code == 1008
        assert time.monotonic() - began < 5.0
    assert_error(keyed.client.get("/api/v1/queue", headers={"Cookie": cookie}), 401)
    with pytest.raises(WebSocketDenialResponse) as refused:
        keyed.client.websocket_connect(SOCKET, headers=bearer).__enter__()
    assert refused.value.status_code == 401


@pytest.fixture(scope="module")
def things(keyed: Served, bearers: dict[str, dict[str, str]]) -> dict[str, str]:
    """Ids of what Anna has: a finished video, a waiting task, an image, a LoRA, a board, a preset, a prompt."""
    client, anna, everything = keyed.client, bearers["anna"], bearers["all"]
    done = client.post(SUBMIT, json=GOOD | {"client_request_id": "same"}, headers=anna).json()["task_id"]
    keyed.complete(keyed.claim())
    keyed.services.home.latents_of(done).write_bytes(b"latents")
    waiting = client.post(SUBMIT, json=GOOD, headers=anna).json()["task_id"]
    image = client.post("/api/v1/inputs", files={"image": ("a.png", make_png(64, 64))}, headers=anna).json()["id"]
    content = next(EMBEDDED_LORAS.glob("*.safetensors")).read_bytes()
    sent = {"file": ("mine.safetensors", content)}
    lora = client.post("/api/v1/lora/upload", files=sent, headers=everything)
    assert lora.status_code == 200, lora.text
    board = client.post("/api/v1/boards", json={"name": "mine"}, headers=anna).json()["id"]
    preset = client.post("/api/v1/presets", json={"name": "mine", "request": {"steps": 9}}, headers=anna).json()["id"]
    prompt = client.get("/api/v1/prompts/history", headers=anna).json()["prompts"][0]["id"]
    tasks = {"output_id": done, "task_id": waiting, "image_id": image, "lora_id": lora.json()["id"]}
    return tasks | {"board_id": board, "preset_id": preset, "prompt_id": prompt}


#: Bodies that the routes take.
_BODIES = {"board_id": {"name": "theirs"}, "preset_id": {"name": "theirs"}, "prompt_id": {"favourite": True}}


def _comparable(response: Any, thing: str, nobody: str) -> tuple[Any, ...]:
    """Return what a client can tell from an answer, with both ids the same."""
    body = re.sub(r'"request_id": "[^"]*"', "", response.text).replace(thing, "?").replace(nobody, "?")
    names = sorted(name for name in response.headers if name != "x-request-id")
    return response.status_code, body, names


def test_things_of_others_answer_like_unknown_ones(
    keyed: Served, bearers: dict[str, dict[str, str]], things: dict[str, str]
) -> None:
    """On every route with such an id, over every door and with every method."""
    compared = 0
    bert = bearers["bert"]
    for template, methods in keyed.paths().items():
        names = [name for name in (*things, "filename") if f"{{{name}}}" in template]
        if not names or "/optimization/" in template:  # its presets are the server's
            continue
        (name,) = names
        if name == "image_id":
            mine, nobody = things[name], "ab" * 32
        elif name == "lora_id":
            mine, nobody = things[name], "nobodys"
        else:
            mine, nobody = things["output_id" if name == "filename" else name], UNKNOWN
        form = "{}_thumb.jpg" if name == "filename" else "{}"
        for method in methods:
            header = bearers["stock"] if needed_scope(method, template) is Scope.MODELS else bert
            answers = [
                keyed.client.request(
                    method,
                    template.replace(f"{{{name}}}", form.format(one)),
                    headers=header,
                    json=_BODIES.get(name, {}) if method in ("POST", "PATCH") else None,
                )
                for one in (mine, nobody)
            ]
            told = [_comparable(answer, mine, nobody) for answer in answers]
            assert told[0] == told[1], (method, template)
            assert answers[0].status_code in (404, 422) or "exists" in told[0][1] or method == "HEAD", (
                method,
                template,
            )
            compared += 1
    assert compared > 40
    assert keyed.client.get(f"/api/v1/outputs/{things['output_id']}", headers=bearers["anna"]).status_code == 200
    assert keyed.client.get(f"/api/v1/queue/{things['task_id']}", headers=bearers["boss"]).status_code == 200


def test_lists_and_counts_show_the_own_things_alone(
    keyed: Served, bearers: dict[str, dict[str, str]], things: dict[str, str]
) -> None:
    client = keyed.client
    for prefix in ("", "/api/v1"):
        theirs = client.get(f"{prefix}/queue", headers=bearers["bert"]).json()
        assert (theirs["tasks"], theirs["total_tasks"]) == ([], 0)
        assert client.get(f"{prefix}/queue/poll", headers=bearers["bert"]).json()["pending_count"] == 0
        assert client.get(f"{prefix}/outputs", headers=bearers["bert"]).json()["total_count"] == 0
        assert things["lora_id"] not in client.get(f"{prefix}/lora", headers=bearers["bert"]).text
        assert things["lora_id"] in client.get(f"{prefix}/lora", headers=bearers["all"]).text
        ids = f"{prefix}/outputs/ids"
        assert client.get(ids, headers=bearers["bert"]).json() == {"ids": [], "total_count": 0}
        assert client.get(f"{ids}?format=packed", headers=bearers["bert"]).content == b""
        assert client.get(ids, headers=bearers["anna"]).json()["ids"] == [things["output_id"]]
        assert client.get(f"{ids}?search=circle", headers=bearers["bert"]).json()["ids"] == []
    for path in ("boards", "presets", "prompts/history", "outputs/tags"):
        shown = client.get(f"/api/v1/{path}", headers=bearers["bert"]).json()
        assert [value for key, value in shown.items() if key != "total_count"] == [[]]
    mine = client.get("/api/v1/queue", headers=bearers["anna"]).json()
    assert {task["id"] for task in mine["tasks"]} == {things["task_id"], things["output_id"]}
    assert client.get("/api/v1/outputs", headers=bearers["anna"]).json()["total_count"] == 1
    assert client.get("/api/v1/outputs", headers=bearers["boss"]).json()["total_count"] == 1


def test_things_of_others_cannot_be_named_in_bodies(
    keyed: Served, bearers: dict[str, dict[str, str]], things: dict[str, str]
) -> None:
    client, bert = keyed.client, bearers["bert"]
    body = GOOD | {"model_type": "tiny-i2v-a14b", "image_id": things["image_id"]}
    assert_error(client.post(SUBMIT, json=body, headers=bert), 404, "input_not_found")
    assert_error(client.post(SUBMIT, json=GOOD | {"loras": [{"id": things["lora_id"]}]}, headers=bert), 422)
    moved = client.post("/api/v1/queue/reorder", json={"task_ids": [things["task_id"]]}, headers=bert).json()
    assert moved["message"].startswith("0 ")
    named = {"ids": [things["output_id"]]}
    assert client.post("/api/v1/outputs/batch", json=named, headers=bearers["reader"]).json()["videos"] == []
    for action in ("mark", "trash", "restore", "delete"):
        told = client.post("/api/v1/outputs/bulk", json=named | {"action": action}, headers=bert).json()
        assert (told["changed"], told["missing"]) == ([], named["ids"])
    assert client.post("/api/v1/outputs/trash/empty", headers=bert).json()["deleted"] == 0
    assert client.delete("/api/v1/prompts/history?favourites=true", headers=bert).json()["message"][0] == "0"
    # Equal names of different callers are different.
    board = client.post("/api/v1/boards", json={"name": "mine"}, headers=bert).json()
    assert client.post("/api/v1/presets", json={"name": "mine", "request": {}}, headers=bert).status_code == 200
    assert client.delete(f"/api/v1/boards/{board['id']}", headers=bearers["anna"]).status_code == 404
    mark = {"board_id": board["id"]}
    place = f"/api/v1/outputs/{things['output_id']}"
    assert_error(client.patch(place, json=mark, headers=bearers["anna"]), 404, "board_not_found")
    # The same idempotency key is another one for another caller.
    other = client.post(SUBMIT, json=GOOD | {"client_request_id": "same", "seed": 9}, headers=bert)
    assert other.status_code == 200
    assert other.json()["task_id"] != things["output_id"]
    client.post(f"/api/v1/queue/{other.json()['task_id']}/cancel", headers=bert)
    assert client.post("/api/v1/queue/clear", headers=bert).json()["cleared"] == 1
    assert client.get(f"/api/v1/queue/{things['output_id']}", headers=bearers["anna"]).status_code == 200
    # Whoever has the same image may use it.
    again = client.post("/api/v1/inputs", files={"image": ("b.png", make_png(64, 64))}, headers=bert).json()["id"]
    assert again == things["image_id"]
    assert client.get(f"/api/v1/inputs/{again}", headers=bert).status_code == 200


def test_a_socket_tells_of_the_own_tasks_alone(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    client = keyed.client
    with (
        client.websocket_connect(SOCKET, headers=bearers["anna"]) as anna,
        client.websocket_connect(SOCKET, headers=bearers["bert"]) as bert,
        client.websocket_connect(SOCKET, headers=bearers["boss"]) as boss,
    ):
        for socket in (anna, bert, boss):
            for topic in ("generation_progress", "queue_updates"):
                socket.send_json({"type": "subscribe", "data": {"topic": topic, "after_event": 0}})
        task_id = client.post(SUBMIT, json=GOOD | {"prompt": "a blue square"}, headers=bearers["anna"]).json()[
            "task_id"
        ]
        last = client.post(SUBMIT, json=GOOD, headers=bearers["bert"]).json()["task_id"]
        heard: dict[str, list[str]] = {}
        for name, socket in (("anna", anna), ("bert", bert), ("boss", boss)):
            end = task_id if name == "anna" else last
            texts = [socket.receive_text()]
            while end not in texts[-1]:
                texts.append(socket.receive_text())
            heard[name] = texts
        assert [one for one in heard["anna"] if last in one] == []
        assert [one for one in heard["bert"] if task_id in one] == []
        assert any(task_id in text for text in heard["boss"])


def test_a_signed_link_ends_with_its_key(
    keyed: Served, things: dict[str, str], bearers: dict[str, dict[str, str]]
) -> None:
    client = keyed.client
    bearer = make(keyed, "linker", Scope.ADMIN)
    link = client.get(f"/api/v1/outputs/{things['output_id']}", headers=bearer).json()["video_url"]
    assert client.get(link).status_code == 200
    stolen = client.get(f"/api/v1/outputs/{things['output_id']}", headers=bearers["anna"]).json()["video_url"]
    bert = next(key.id for key in keyed.services.key_store.all() if key.name == "bert")
    assert_error(client.get(re.sub(r"holder=\w+", f"holder={bert}", stolen)), 401)
    revoke(keyed, "linker")
    keyed.services.keys.refresh()
    assert_error(client.get(link), 401)


def test_requests_beyond_the_rate_wait(keyed: Served) -> None:
    bearer = make(keyed, "slow", Scope.READ, requests_per_minute=3)
    answers = [keyed.client.get("/api/v1/health", headers=bearer) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert_error(answers[3], 429, "rate_limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 21


def test_quotas_are_kept_and_renewed(keyed: Served) -> None:
    bearer = make(keyed, "frugal", Scope.GENERATE, gpu_seconds_per_day=0.001, waiting_tasks=1)
    first = keyed.client.post(SUBMIT, json=GOOD | {"client_request_id": "one"}, headers=bearer)
    assert first.status_code == 200
    refused = keyed.client.post(SUBMIT, json=GOOD, headers=bearer)
    assert_error(refused, 429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    # A repeated request is no new task.
    assert keyed.client.post(SUBMIT, json=GOOD | {"client_request_id": "one"}, headers=bearer).status_code == 200
    while keyed.claim().id != first.json()["task_id"]:
        pass
    time.sleep(0.01)
    services = keyed.services
    key_id = next(key.id for key in services.key_store.all() if key.name == "frugal")
    assert services.key_usage.of(key_id).gpu_seconds_today > 0.0
    task = services.tasks.get(first.json()["task_id"])
    keyed.complete(task)
    used = keyed.client.get("/api/v1/session", headers=bearer).json()
    assert (used["gpu_seconds_today"] > 0.001, used["unfinished_tasks"]) == (True, 0)
    assert_error(keyed.client.post(SUBMIT, json=GOOD, headers=bearer), 429, "quota_exceeded")


def test_wrong_keys_from_one_address_have_to_wait(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.api.http.gate.WRONG_KEYS_PER_MINUTE", 3)
    served = serve(api_key="right")
    codes = [served.client.get("/queue", headers={"Authorization": "Bearer no"}).status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    assert served.client.get("/queue", headers={"Authorization": "Bearer right"}).status_code == 429
    assert served.client.get("/live").status_code == 200


def test_the_first_key_locks_the_server(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.client.websocket_connect(SOCKET) as open_socket:
        assert open_socket.receive_json()["type"] == "connection_established"
        assert served.client.get("/api/v1/session").json()["needs_key"] is False
        made = served.client.post("/api/v1/keys", json={"name": "first", "scopes": ["admin"]}).json()
        with pytest.raises(WebSocketDisconnect):
            open_socket.receive_json()
    assert_error(served.client.get("/api/v1/queue"), 401)
    bearer = {"Authorization": f"Bearer {made['key']}"}
    assert served.client.delete(f"/api/v1/keys/{made['id']}", headers=bearer).status_code == 200
    assert_error(served.client.get("/api/v1/queue"), 401)  # and the last one that is revoked opens nothing
    assert served.services.keys.holds(ANYBODY) is False


def test_a_damaged_key_opens_the_server_to_nobody(serve: Callable[..., Served]) -> None:
    served = serve()
    bearer = make(served, "only", Scope.ADMIN)
    assert served.client.get("/api/v1/queue", headers=bearer).status_code == 200
    with closing(sqlite3.connect(served.services.home.database)) as database, database:
        database.execute("UPDATE api_keys SET scopes = '[\"adm'")
    served.services.keys.refresh()
    assert_error(served.client.get("/api/v1/queue"), 401)
    assert_error(served.client.get("/api/v1/queue", headers=bearer), 401)


def test_the_secret_of_a_home_is_its_owners_alone(tmp_path: Path, serve: Callable[..., Served]) -> None:
    served = serve()
    file = served.services.home.secret_file
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    file.chmod(0o644)
    after = ring.home_secret(served.services.home)
    assert after != before
    assert file.stat().st_mode & 0o777 == 0o600
    target = tmp_path / "known"
    target.write_bytes(b"k" * 32)
    file.unlink()
    file.symlink_to(target)
    assert ring.home_secret(served.services.home) != b"k" * 32
    assert target.read_bytes() == b"k" * 32


def test_whoever_is_served_is_known_in_every_thread(keyed: Served, bearers: dict[str, dict[str, str]]) -> None:
    assert keyed.client.post(SUBMIT, json=GOOD, headers=bearers["all"]).status_code == 200
    anna = Caller("anna", "anna", frozenset({Scope.GENERATE}))
    with acting_as(anna):
        assert keyed.services.tasks.list() == []
    assert keyed.services.tasks.list() != []
    assert TINY in GOOD["model_type"]
