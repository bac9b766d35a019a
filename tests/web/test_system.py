"""The system on the page: figures that move on, an alert of a full memory, a drained worker, components, advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(240)
FULL = {"alert_type": "memory", "severity": "critical", "message": "The card's memory is 92 % full"}


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without a worker: the test plays it."""
    server = LiveServer(tmp_path_factory.mktemp("system") / "home", WAN22_WORKER="false")
    yield server
    server.stop()


def test_the_load_moves_on_and_a_full_memory_is_told(idle: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{idle.url}/system")
    expect(page.get_by_test_id("cpu-usage")).to_have_text(re.compile(r"^\d+ %$"))
    expect(page.get_by_test_id("ram-usage")).to_have_text(re.compile(r"^\d+ %$"))
    moment = page.get_by_test_id("stats-time")
    before = moment.inner_text()
    expect(moment).not_to_have_text(before)
    page.get_by_role("group", name="CPU").or_(page.get_by_label("CPU", exact=True)).get_by_text("As a table").click()
    expect(page.get_by_role("table", name="CPU")).to_contain_text("%")

    expect(page.get_by_test_id("alert")).to_have_count(0)
    tasks = TaskStore(Database(f"sqlite:///{idle.home / 'wan22.db'}"))
    idle.submit()
    task = tasks.claim("host:1:1:test", 60.0)
    assert task is not None
    tasks.alert(task.id, str(task.lease_token), FULL)
    expect(page.get_by_test_id("alert")).to_contain_text("The card's memory is 92 % full")
    page.get_by_text("24 h", exact=True).click()
    expect(page.get_by_test_id("cpu-usage")).to_be_visible()


def test_components_are_named_and_a_remedy_is_in_the_log(idle: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{idle.url}/system#health")
    expect(page.get_by_text("Reachable; ")).to_be_visible()
    page.get_by_role("button", name="Do it now").click()
    expect(page.get_by_test_id("recovery-action").first).to_contain_text("System health check")
    page.get_by_test_id("system-use").click()
    expect(page.get_by_test_id("connections")).to_contain_text("listen")


def test_a_worker_is_drained_and_takes_tasks_again(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{server.url}/system#workers")
    worker = page.get_by_test_id("worker")
    worker.get_by_role("button", name="Drain after this task").click()
    again = worker.get_by_role("button", name="Take tasks again")
    expect(again).to_be_visible()
    again.click()
    expect(worker.get_by_role("button", name="Drain after this task")).to_be_visible()


def test_what_a_clip_took_is_shown_by_phase(server: LiveServer, open_page: Callable[..., Page]) -> None:
    server.wait(server.submit(), "completed", seconds=200)
    page = open_page(f"{server.url}/system#analytics")
    expect(page.get_by_test_id("analytics")).to_contain_text("Became a clip")
    expect(page.get_by_role("table", name="Where the time goes")).to_contain_text("Denoising")
