"""What must hold for every route, also for those that will be added: rules, not examples."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from backend.api.http.gate import PUBLIC_PATHS, PUBLIC_PREFIXES
from backend.api.http.pages import ICON, PAGES
from backend.api.http.scopes import stated_scope
from tests.api.support import Served

BACKEND = Path(__file__).parents[2] / "backend"
WEB_FILES = [*sorted((BACKEND / "api").rglob("*.py")), BACKEND / "app.py"]
READING = {"GET", "HEAD"}
#: All that an `async def` may call without awaiting it; functions of the same file are followed, not listed. Whatever
#: talks to the database, the disk or the machine belongs to a thread.
FUNCTIONS = """
    about abs any dict filter in_plain_words int isinstance len list nearest next ord partial round set sorted
    copy_context str sum super suppress type
    BodyTooLarge Forbidden HTTPException InvalidImage InvalidRequest MalformedBody RequestValidationError WanError kind
    HTTPStatus Headers MutableHeaders Response answer_to error_answer get_swagger_ui_html Sent
    Links Response ValueError accepted_subprotocol cookie_parser current_links getattr in_plain_words int
    ip_address route_path
    Credential Exchange RateLimited ScopeMissing Unauthorized acting_as credential_of float link_credential
    links_signed_by max needed_scope nullcontext session_credential
    KeptAnswer _BodyDigest bytes check_key min
    compile_path iter_route_contexts
    Alive Connection LoraUpload News Ports Socket SocketStats TaskFeed _Body _Page aclosing all bool card_messages
    encode enumerate full_answer iso loop min queue_counts system_stats utcnow write
"""
#: Methods of texts, mappings and patterns; no store or service has one of these names.
METHODS = """
    decode dumps encode endswith errors getlist isascii isdigit isfinite items join loads lower match model_dump
    model_validate multi_items partition removeprefix replace setdefault startswith strip values
    chosen fromkeys fullmatch isdecimal keys lstrip may recognise rstrip sees split to to_media tokens_of
    uncancel union watching
"""
#: Methods whose names stores have too, with the objects that may be asked on the event loop.
OWNED = {
    "_send": {"self"},
    "get": {
        "_open",
        "_counts",
        "_MEANT",
        "sent",
        "_OLDER_WORDS",
        "_OPENAI_TYPES",
        "spelled",
        "first",
        "_handlers",
        "data",
        "form",
        "headers",
        "known",
        "message",
        "query",
        "scope",
        "_pages",
        "",
    },
    "pop": {"values", "waiting"},
    "has": {"_trusted"},
    "reset": {"_links"},
    "set": {"_filled", "_let_go", "_links", "_room", "_stats_wanted", "_stopping", "knows_exact_ids", "writable"},
    "clear": {"_filled", "_outbox", "_pages", "_room", "_stats_wanted"},
    "append": {"_outbox", "pairs"},
    "popleft": {"_outbox"},
    "popitem": {"_pages"},
    "move_to_end": {"_pages"},
    "update": {"_digest", "topics"},
    "wants": {"connection"},
    "between": {"_replay"},
    "running": {"_board"},
    "call_later": {"loop"},
    "fail_after": {"anyio"},
    "monotonic": {"time"},
    "is_set": {"_stopping"},
    "wait": {"_stopping", "_wrong_keys", "_requests"},
    "add": {"known", "topics"},
    "discard": {"topics"},
    "apply": {"board", "_board"},
    "snapshot": {"_board"},
    "subscription_counts": {"sockets", "_manager"},
    "offer": {"connection"},
    "let_go": {"connection"},
    "put_nowait": {"_outbox"},
    "qsize": {"_outbox"},
    "form": {"request"},
    "cancel": {"cancel_scope", "_task"},
    "hexdigest": {"_digest"},
    "sha256": {"hashlib"},
    "empty": {"_wrong_keys"},
    "start_soon": {"group"},
    "create_task_group": {"anyio"},
    "move_on_after": {"anyio"},
    "create_task": {"asyncio"},
    "get_running_loop": {"asyncio"},
    "compare_digest": {"hmac"},
    "ip_address": {"ipaddress"},
    "bound_contextvars": {"contextvars"},
    "perf_counter": {"time"},
    "uuid4": {"uuid"},
    "error": {"log"},
    "exception": {"log"},
    "warning": {"log"},
}


def test_reading_changes_nothing(served: Served) -> None:
    waiting = served.submit()
    served.complete_one()
    running = served.claim() if served.services.tasks.counts()["pending"] else None
    assert running is not None
    before = _state(served)
    called = 0
    for path, methods in served.paths().items():
        for method in methods & READING:
            if (path, method) == ("/api/v1/events", "GET"):
                continue  # it does not end, and the client of this test waits for the end
            for task_id in (waiting, running.id, "nobody"):
                served.client.request(
                    method,
                    path.format(
                        task_id=task_id,
                        output_id=task_id,
                        image_id="ab" * 32,
                        filename="x_thumb.jpg",
                        lora_id="none",
                        model_type="t2v",
                        preset_id="balanced",
                        video_id=task_id,
                        model="t2v",
                        metric_type="generation_time",
                        delivery_id="msg_none",
                    ),
                )
                called += 1
    assert called > 100
    assert _state(served) == before


def _state(served: Served) -> tuple[Any, ...]:
    services = served.services
    files = sorted(
        (str(path), path.stat().st_mtime_ns)
        for path in services.home.root.rglob("*")
        if path.is_file() and "wan22.db" not in path.name
    )
    return services.tasks.list(), services.events.after(0), services.outputs.list(), files


def test_every_route_is_documented(shared: Served) -> None:
    schema = shared.client.get("/openapi.json").json()
    operations = [
        (path, method, operation) for path, methods in schema["paths"].items() for method, operation in methods.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation.get("tags"), where
        assert operation.get("summary"), where
        assert operation.get("description"), where
        refused = operation["responses"].get("422")
        if refused is not None:
            assert refused["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody"), where
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], where
            assert parameter.get("description"), f"{where}: {parameter['name']}"


def test_only_aliases_are_left_out_of_the_documentation(shared: Served) -> None:
    documented = {
        (path, method.upper())
        for path, methods in shared.client.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    # The pages, the documentation itself and the paths of older clients are not part of the API we offer.
    others = {*PAGES, ICON, "/docs", "/openapi.json", "/api/health"}
    for path, methods in shared.paths().items():
        for method in methods - {"HEAD"}:
            alias = (f"/api/v1{path}", method) in documented or path in others
            assert (path, method) in documented or alias, (method, path)


def test_the_documented_body_is_the_one_that_is_read(shared: Served) -> None:
    operation = shared.client.get("/openapi.json").json()["paths"]["/api/v1/generation/submit"]["post"]
    content = operation["requestBody"]["content"]
    as_json = content["application/json"]["schema"]
    assert set(as_json["required"]) == {"prompt"}
    assert set(content["multipart/form-data"]["schema"]["properties"]) - set(as_json["properties"]) == {
        "image",
        "end_image",
    }
    assert "$ref" not in json.dumps(operation["requestBody"])


def test_changing_routes_use_methods_that_browsers_protect(shared: Served) -> None:
    methods = {method for all_methods in shared.paths().values() for method in all_methods}
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


def test_no_handler_blocks_the_event_loop() -> None:
    checked = 0
    for file in WEB_FILES:
        tree = ast.parse(file.read_text())
        checked += sum(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))
        assert not _blocking(tree), file.name
    assert checked > 20


def _blocking(tree: ast.Module) -> list[str]:
    """Return the calls on the event loop that are not allowed, with their lines."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    waiting: list[ast.FunctionDef | ast.AsyncFunctionDef] = [
        node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)
    ]
    found, followed = [], set()
    while waiting:
        function = waiting.pop()
        followed.add(function)
        for call in _own_calls(function):
            here = functions.get(_local_name(call.func))
            if here is None and not _allowed(call.func):
                found.append(f"line {call.lineno}: {function.name} calls {ast.unparse(call.func)}")
            if here is not None and here not in followed:
                waiting.append(here)
    return found


def _own_calls(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.Call]:
    """Return the calls that run on the event loop: not awaited ones, which give way, and not inner functions'."""
    nodes: list[ast.AST] = list(function.body)
    calls = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            nodes += [*node.value.args, *node.value.keywords, node.value.func]
            continue
        if isinstance(node, ast.Call):
            calls.append(node)
        nodes += ast.iter_child_nodes(node)
    return calls


def _local_name(target: ast.expr) -> str:
    """Return the name of a call that may be to a function or method of the same file."""
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""


def _allowed(target: ast.expr) -> bool:
    if isinstance(target, ast.Name):
        return target.id in FUNCTIONS.split()
    if not isinstance(target, ast.Attribute):
        return False
    owner = target.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return target.attr in METHODS.split() or name in OWNED.get(target.attr, ())


@pytest.mark.parametrize(
    ("code", "blocks"),
    [
        ("async def f():\n    services.tasks.get('x')", True),
        ("async def services_of(request):\n    services.configuration.refresh()", True),
        ("def g():\n    path.read_bytes()\nasync def f():\n    g()", True),
        ("async def f():\n    await asyncio.to_thread(write, path.read_bytes())", True),
        ("async def f():\n    return data.get('x')", False),
        ("async def f():\n    self._events.after(0)", True),
        ("async def f():\n    path.read_bytes()", True),
        ("async def f():\n    time.sleep(1)", True),
        ("async def f():\n    await asyncio.to_thread(self._events.after, 0)", False),
        ("async def f():\n    await asyncio.sleep(1)", False),
        ("async def f():\n    def g():\n        path.read_bytes()\n    return g", False),
    ],
)
def test_the_rule_above_sees_what_it_should(code: str, blocks: bool) -> None:
    assert bool(_blocking(ast.parse(code))) is blocks


def test_handlers_that_ask_stores_run_in_threads(shared: Served) -> None:
    """Every handler is a plain function unless it touches neither database nor disk."""
    light = {"live", "ports", "socket_stats", "interactive_docs", "openapi"}
    for route in iter_route_contexts(shared.app.routes):
        if route.methods and route.endpoint is not None and route.endpoint.__name__ not in light:
            # Those that change something are wrapped: the wrapper takes them to threads of their own.
            assert not _is_async(inspect.unwrap(route.endpoint)), route.path


def _is_async(function: Any) -> bool:
    return bool(function.__code__.co_flags & 0x80)  # inspect.CO_COROUTINE


STARTED = """
import json, sys
from fastapi.testclient import TestClient
from backend.app import create_app
from backend.core.settings import load_settings
with TestClient(create_app(load_settings(worker=False)), base_url="http://127.0.0.1:8000") as client:
    assert client.get("/api/v1/system/health").status_code == 200
    body = {"model_type": "auto", "prompt": "a red circle"}
    assert client.post("/api/v1/generation/submit", json=body).status_code == 200
    assert client.get("/api/v1/models").status_code == 200
    assert client.get("/docs").status_code == 200
print(json.dumps(sorted(sys.modules)))
"""


def test_a_web_process_at_work_has_not_loaded_the_engine() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], check=True, capture_output=True, text=True, timeout=100)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "diffusers", "transformers", "accelerate", "peft", "tokenizers", "av", "PIL", "numpy"}
    assert loaded & heavy == set()
    assert not [name for name in loaded if name.startswith(("backend.engine", "backend.worker"))]
    assert "backend.app" in loaded


def test_every_route_has_a_scope(shared: Served) -> None:
    """Add a path that is missing here to the table in `backend/api/http/scopes.py`."""
    doors = [(path, method) for path, methods in shared.paths().items() for method in methods]
    doors += [(str(route.path), "GET") for route in iter_route_contexts(shared.app.routes) if not route.methods]
    assert ("/ws", "GET") in doors
    for path, method in doors:
        if path not in PUBLIC_PATHS and f"{path}/" not in PUBLIC_PREFIXES:
            assert stated_scope(method, path) is not None, (method, path)


def test_every_door_of_a_route_needs_the_same_scope(shared: Served) -> None:
    paths = shared.paths()
    for path, methods in paths.items():
        for method in methods:
            if path.startswith("/api/v1") and method in paths.get(path.removeprefix("/api/v1"), ()):
                assert stated_scope(method, path) is stated_scope(method, path.removeprefix("/api/v1"))


#: Every POST, under the last part of its path: what it creates, or why a repeated call harms nothing. One that creates
#: is declared with `router.create`, or reads its key itself and queues it in the transaction of its tasks.
CREATING = {
    "/generation/submit": "tasks",
    "/generate": "tasks",
    "/queue/{task_id}/duplicate": "a task",
    "/queue/{task_id}/retry": "an attempt",
    "/outputs/{output_id}/extend": "tasks",
    "/outputs/{output_id}/redecode": "a task",
    "/inputs": "an image",
    "/outputs/import": "a video",
    "/lora/upload": "a LoRA",
    "/models/download": "a download",
    "/boards": "a board",
    "/presets": "a preset",
    "/v1/videos": "a task",
    "/v1/videos/edits": "a task",
    "/v1/videos/extensions": "a task",
    "/v1/videos/{video_id}/remix": "a task",
}
NOT_CREATING = {
    "answers a question": {
        "/config/validate-policies",
        "/config/validate-preferences",
        "/generation/estimate",
        "/lora/{lora_id}/preview",
        "/models/adoption/survey",
        "/models/fallback/suggest",
        "/models/validate/{model_type}",
        "/models/verify/{model_type}",
        "/outputs/batch",
        "/outputs/inspect",
        "/prompt/enhance",
        "/performance/export",
        "/prompt/preview",
        "/prompt/validate",
        "/system/cors/test",
    },
    "sets what is set already": {
        "/config/reset-to-defaults",
        "/generation/policy",
        "/models/adoption",
        "/models/download/manage",
        "/models/repair/{model_type}",
        "/optimization/apply-preset/{preset_id}",
        "/outputs/bulk",
        "/outputs/{output_id}/restore",
        "/performance/optimize",
        "/queue/pause",
        "/queue/reorder",
        "/queue/resume",
        "/queue/{task_id}/cancel",
        "/queue/{task_id}/move",
        "/queue/{task_id}/pause",
        "/queue/{task_id}/resume",
        "/system/constraints",
        "/system/optimization",
        "/workers/drain",
        "/workers/resume",
    },
    "deletes, and deletes nothing the second time": {"/models/cleanup", "/outputs/trash/empty", "/queue/clear"},
    "sends again what was sent, under the same id": {"/webhooks/deliveries/{delivery_id}/redeliver"},
    "records each time that it was done": {
        "/analytics/errors",
        "/analytics/journey",
        "/analytics/performance",
        "/recovery/reset",
        "/recovery/trigger",
        "/system/stats/save",
    },
    "is refused the second time, as names are unique; its answer has a secret, which is stored nowhere": {"/keys"},
    "takes one change more back, which it names": {"/config/undo"},
    "is not offered": {"/v1/videos/characters"},
    "sets a cookie": {"/session"},
}


def test_every_post_that_creates_honours_an_idempotency_key(shared: Served) -> None:
    found = {path.removeprefix("/api/v1") for path, methods in shared.paths().items() if "POST" in methods}
    harmless = set().union(*NOT_CREATING.values())
    assert found == CREATING.keys() | harmless, "say in the tables above whether this POST creates something"
    schema = shared.client.get("/openapi.json").json()["paths"]
    for path in found:
        parameters = schema[path if path.startswith("/v1/") else f"/api/v1{path}"]["post"].get("parameters", [])
        keyed = any(one["name"] == "Idempotency-Key" for one in parameters)
        assert keyed is (path in CREATING), path
