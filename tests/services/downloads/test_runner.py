"""The list of downloads and its database: changes by another process, and a failing database."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress
from backend.core.errors.surroundings import StoreUnavailable
from backend.core.paths import Home
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager
from backend.services.downloads import runner as model_downloads
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.runner import ModelDownloads
from backend.services.downloads.state import DownloadState
from backend.store.download_orders import DownloadOrders, Order, Urgency
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.store.samples import LEASE, submit
from tests.support.server import wait_for

T2V, TI2V = MODELS["T2V-A14B"], MODELS["TI2V-5B"]


class Line:
    """A fetcher whose bytes arrive when the test allows it, and which stops on request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = threading.Event()
        self.chunks = 0
        self.patient: list[bool] = []

    def made(self, patient: bool) -> Line:
        self.patient.append(patient)
        return self

    def download(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        self.asked.append(spec.id)
        while not self.open.wait(0.005):
            check()
            self.chunks += 1
            on_progress(DownloadProgress(DownloadPhase.DOWNLOADING, None, 1, 2, None, None))
        return Path(spec.id)


class Failing(DownloadOrders):
    """A database that stops responding on request."""

    fails = False

    def list(self) -> list[Order]:
        if self.fails:
            raise StoreUnavailable
        return super().list()

    def remove(self, model: str) -> None:
        if self.fails:
            raise StoreUnavailable
        super().remove(model)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_downloads, "POLL_SECONDS", 0.01)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'wan22.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "wan").create()


@pytest.fixture
def serve(database: Database, line: Line, home: Home) -> Iterator[Callable[..., ModelDownloads]]:
    started: list[ModelDownloads] = []
    models = ModelManager(home, has_gpu=False)

    def make(orders: DownloadOrders | None = None) -> ModelDownloads:
        started.append(ModelDownloads(line.made, home, models, orders or DownloadOrders(database)))
        return started[-1]

    yield make
    line.open.set()
    for one in started:
        one.stop()


def until(downloads: ModelDownloads, state: DownloadState, spec: ModelSpec = T2V) -> None:
    def there() -> bool:
        found = downloads.get(spec)
        return found is not None and found.state is state

    wait_for(there, what=state)


def test_changes_by_another_server_take_effect_here(
    serve: Callable[..., ModelDownloads], database: Database, line: Line
) -> None:
    here, there = serve(), DownloadOrders(database)
    here.obey(T2V, there.want(T2V.id))
    until(here, DownloadState.DOWNLOADING)
    there.pause(T2V.id, wished=True)
    until(here, DownloadState.PAUSED)
    wait_for(lambda: not here.is_at(T2V), what="the line to be let go")
    chunks = line.chunks
    there.rank(T2V.id, Urgency.CRITICAL)
    wait_for(lambda: getattr(here.get(T2V), "urgency", None) is Urgency.CRITICAL, what="the new urgency")
    assert line.chunks == chunks
    there.resume(T2V.id)
    until(here, DownloadState.DOWNLOADING)
    line.open.set()
    until(here, DownloadState.COMPLETED)
    assert line.asked == [T2V.id, T2V.id]
    assert there.list() == []


def test_ordered_downloads_resume_in_order_after_any_end(
    serve: Callable[..., ModelDownloads], database: Database, line: Line
) -> None:
    orders = DownloadOrders(database)
    for name in ("I2V-A14B", "TI2V-5B", "T2V-A14B"):
        orders.want(name)
    orders.rank("T2V-A14B", Urgency.HIGH)
    orders.pause("I2V-A14B", wished=True)
    orders.pause("Wan2.1-T2V-1.3B", wished=False)
    line.open.set()
    here = serve()
    here.restore()
    until(here, DownloadState.COMPLETED, TI2V)
    assert line.asked == ["T2V-A14B", "TI2V-5B"]
    assert line.patient == [True, True], "the network may come back later than this machine"
    here.obey(T2V, orders.want(T2V.id))
    wait_for(lambda: len(line.asked) == 3, what="a new order")
    assert line.patient[-1] is False, "who asks now is told soon when the hub is not there"
    until(here, DownloadState.PAUSED, MODELS["I2V-A14B"])
    assert here.get(MODELS["Wan2.1-T2V-1.3B"]) is None, "nobody ordered it"
    assert [order.model for order in orders.list()] == ["I2V-A14B", "Wan2.1-T2V-1.3B"]


@pytest.mark.parametrize("wished", [True, False])
def test_a_pause_ends_once_its_model_is_complete(
    serve: Callable[..., ModelDownloads], database: Database, line: Line, home: Home, wished: bool
) -> None:
    orders, tasks = DownloadOrders(database), TaskStore(database)
    orders.pause(T2V.id, wished=wished)
    orders.pause(TI2V.id, wished=False)
    orders.pause("taken-out", wished=True)
    waiting = submit(tasks, model=T2V.id)
    here = serve()
    here.restore()
    assert tasks.claim("w1", LEASE) is None
    shutil.copytree(EMBEDDED_MODELS / "tiny-t2v-a14b", home.model_of(T2V.id))  # as if copied by hand
    wait_for(lambda: not orders.is_paused(T2V.id), what="the end of the pause")
    assert tasks.queue_position(waiting.id) == 1
    if wished:
        until(here, DownloadState.COMPLETED)
    assert [(one.model, one.paused) for one in orders.list()] == [(TI2V.id, True), ("taken-out", True)]
    assert line.asked == []


def test_a_failing_database_ends_no_download(
    serve: Callable[..., ModelDownloads], database: Database, line: Line
) -> None:
    orders = Failing(database)
    here = serve(orders)
    here.obey(T2V, orders.want(T2V.id))
    until(here, DownloadState.DOWNLOADING)
    orders.fails = True
    before = line.chunks
    wait_for(lambda: line.chunks > before + 20, what="more bytes")
    line.open.set()
    until(here, DownloadState.COMPLETED)
    orders.fails = False
    again = serve()
    again.restore()  # the end could not be stored, so it is detected again
    until(again, DownloadState.COMPLETED)
    assert orders.list() == []


def test_an_order_that_cannot_be_stored_is_refused_and_nothing_starts(
    serve: Callable[..., ModelDownloads], database: Database, home: Home
) -> None:
    orders, models = Failing(database), ModelManager(home, has_gpu=False)
    here = serve(orders)
    control = DownloadControl(home, models, here, orders, TaskStore(database))
    control.start(T2V)
    until(here, DownloadState.DOWNLOADING)
    orders.fails = True
    with pytest.raises(StoreUnavailable):
        control.cancel(T2V)
    assert getattr(here.get(T2V), "state", None) is DownloadState.DOWNLOADING
