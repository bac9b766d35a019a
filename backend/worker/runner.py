"""The worker process: one device, one model in memory, one task at a time: claim, run, finish.

Every attempt ends in a recorded state: completed, failed with advice, cancelled, handed back, or lost to
another worker. The engine is imported when the worker runs, never when this module is.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from backend.core.config.file import ConfigFile
from backend.core.domain import Task
from backend.core.errors.base import WanError
from backend.core.errors.generation import FileUnusable, UnexpectedFailure, WorkerStalled
from backend.core.errors.interruptions import (
    DownloadPaused,
    LeaseLost,
    TaskCancelled,
    TaskHeldUp,
    TaskPaused,
    WorkerStopping,
)
from backend.core.errors.lookups import TaskNotFound
from backend.core.errors.surroundings import StoreFailed
from backend.core.planning.memory_level import MemoryAlert, MemoryLevel
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.rules import native_request
from backend.core.settings import Settings
from backend.models.folder.manager import ModelManager
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.downloads.state import orders_in_force
from backend.services.error_handler import GenerationErrorHandler
from backend.services.run.memory_watch import MemoryWatch
from backend.services.system.surroundings import Surroundings
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from backend.store.leases import Loss
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerState, WorkerStore, WorkerWish, new_worker_id
from backend.worker.absent_hub import AbsentHub
from backend.worker.attempt import Attempt
from backend.worker.endings import Endings, hold
from backend.worker.heartbeat import Heartbeat
from backend.worker.leftovers import Leftovers
from backend.worker.stall import Stall, innermost_calls
from backend.worker.stop import DEVICE_FAILED_STATUS, DUMP_SIGNAL, RESTART_STATUS, StopSignal
from backend.worker.yielding import Yielding

if TYPE_CHECKING:
    from backend.core.model_integration_bridge import ModelIntegrationBridge
    from backend.engine.device.facts import DeviceFacts
    from backend.engine.loading.pipeline_loader import WanComponents
    from backend.engine.memory.others import OtherPrograms
    from backend.services.run.model_fallback import ModelFallback

#: Exit status of a worker that ended itself because its attempt no longer moved.
STALLED_STATUS: Final = 3
#: Share of the grace period that a running step gets; the rest is for handing the task back.
GRACE_OF_STEP = 0.7
#: Pause before the queue is polled again after the database did not answer, in seconds.
STORE_PAUSE_SECONDS = 1.0
#: Shortest interval between two checks of the paused downloads against the disk: the queue is polled more often.
PAUSE_CHECK_SECONDS: Final = 1.0
#: How often a worker checks whether it could keep a video, in seconds.
SURROUNDINGS_SECONDS: Final = 1.0
#: How the engine's threads wait for each other, unless the operator says otherwise. Those of OpenMP spin by default; as
#: soon as another process needs a core, each of the thousands of barriers of a step then waits for a thread that is not
#: running. Must be set before torch is loaded. docs/benchmarks/other-load.md has the figures.
WAIT_POLICY: Final = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}

log = structlog.get_logger(__name__)


def run_worker(settings: Settings, worker_id: str | None = None) -> int:
    """Run one worker until it is asked to stop; return the exit status of the process.

    A worker with a given id belongs to a supervisor and ends when the supervisor's end of its stdin pipe closes.
    """
    for name, value in WAIT_POLICY.items():
        os.environ.setdefault(name, value)
    # A crash in native code leaves the stacks of all threads, and so does a supervisor that asks for them.
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    return WorkerRunner(settings, worker_id or new_worker_id(), supervised=worker_id is not None).run()


class WorkerRunner:
    """The life of one worker."""

    def __init__(
        self, settings: Settings, worker_id: str, *, supervised: bool = True, devices: DeviceFacts | None = None
    ) -> None:
        """Prepare; `devices` are facts about the cards, None = ask torch."""
        self._settings = settings
        self._devices = devices
        self._worker_id = worker_id
        self._home = settings.paths.create()
        self._configuration = ModelConfigurationManager(self._home)
        self._database = Database(settings.database, checkpointer=False, creates=False)
        self._tasks = TaskStore(self._database)
        self._outputs = OutputStore(self._database, self._home)
        self._leftovers = Leftovers(self._home, self._tasks, self._outputs, settings.keep_states_hours * 3600.0)
        self._heartbeat = Heartbeat(settings, worker_id, self._tasks, WorkerStore(self._database), self._end_stalled)
        self._stop = StopSignal(
            watch_parent=supervised,
            grace_seconds=settings.stop_grace_seconds * GRACE_OF_STEP,
            too_late=self._hand_back,
            busy=lambda: self._in_hand.is_set(),
        )
        self._in_hand = threading.Event()  # whether a task is being claimed, run or ended
        self._surroundings = Surroundings(self._home)
        self._surroundings_due = 0.0
        self._waits_for: str | None = None  # why no task is claimed
        self._others: OtherPrograms | None = None
        self._yielding = Yielding(ConfigFile(self._home.config_file), lambda: self._others)
        self._hub = AbsentHub()
        self._device = settings.device
        self._bridge: ModelIntegrationBridge[WanComponents] | None = None
        self._orders = DownloadOrders(self._database)
        self._models: ModelManager | None = None
        self._pauses_due = 0.0
        self._watch: MemoryWatch | None = None
        self._idle_since = time.monotonic()
        self._errors = GenerationErrorHandler(worker_id)
        self._endings = Endings(self._surroundings, self._hub, self._lacks, settings.retry_seconds)

    def run(self) -> int:
        """Work until asked to stop, in the main thread of a process; return the exit status."""
        structlog.contextvars.bind_contextvars(worker_id=self._worker_id)
        self._stop.watch()
        if not self._prepare():
            return 0
        log.info("worker.started", pid=os.getpid())
        try:
            generation = self._open_pipeline()
            while not self._stop.wished.is_set() and self._endings.last_words is None and not self._restarts:
                task = self._claim()
                if task is None:
                    self._rest()
                else:
                    self._run_attempt(generation, task)
                    self._idle_since = time.monotonic()
        except Exception as error:  # the boundary of the process
            failure = self._errors.explain(error)
            log.error("worker.cannot_work", error=failure.code, message=failure.message, next_steps=failure.next_steps)
            words = " ".join((f"{failure.message.rstrip('.')}.", *failure.next_steps))
            if isinstance(failure, UnexpectedFailure | FileUnusable):  # which file or library, the text says
                words = f"{type(error).__name__}: {error}"
            return self._give_up(words, DEVICE_FAILED_STATUS if failure.ends_process else 1)
        if self._endings.last_words is not None:
            return self._give_up(self._endings.last_words, DEVICE_FAILED_STATUS)
        return self._sign_off()

    @property
    def _restarts(self) -> bool:
        """Whether this process was asked to make way for a new one."""
        return self._heartbeat.wish is WorkerWish.RESTART

    def _sign_off(self) -> int:
        """End in order; return the exit status."""
        self._hub.stop()
        self._yielding.stop()
        self._heartbeat.stop()
        if self._watch is not None:
            self._watch.stop()
        self._database.close()
        log.info("worker.stopped", restarts=self._restarts)
        return RESTART_STATUS if self._restarts and not self._stop.wished.is_set() else 0

    def _give_up(self, last_words: str, status: int) -> int:
        """Leave the reason in the register, where the supervisor reads it; return the exit status."""
        self._heartbeat.show(self._device, WorkerState.LOADING, last_words)
        self._heartbeat.stop(sign_off=False)
        return status

    def _prepare(self) -> bool:
        """Wait for the database, clean up after dead attempts, and sign on; return False when asked to stop."""
        while not self._stop.wished.is_set():
            try:
                self._database.migrate()
                self._heartbeat.start()
            except StoreFailed as error:
                log.warning("worker.waits_for_database", error=error.code, message=error.message)
                self._stop.wished.wait(STORE_PAUSE_SECONDS)
                continue
            while self._has_to_wait(by_wish=False):
                if self._stop.wished.wait(SURROUNDINGS_SECONDS):
                    return False
            self._tidy(self._leftovers.sweep)
            return True
        return False

    def _open_pipeline(self) -> ModelFallback:
        """Import the engine, find the device, and load the default model, so that the first task starts at once."""
        gc.disable()  # to look for garbage among objects that stay takes a seventh of the time of the imports
        try:
            from backend.worker.wiring import assemble
        finally:
            gc.freeze()
            gc.enable()

        self._configuration.refresh()
        parts = assemble(self._settings, self._database, self._devices, self._found_device, self._report_alert)
        bridge, self._models = parts.bridge, parts.models
        self._bridge = bridge
        self._watch = parts.watch
        self._watch.start()
        self._others = parts.others
        self._yielding.start()
        self._heartbeat.equipment = parts.equipment
        self._heartbeat.loaded_model = lambda: bridge.loaded_model
        try:
            model = parts.models.default()
            self._heartbeat.show(self._device, WorkerState.LOADING, model.id)
            if not self._has_to_wait():
                parts.pipeline.preload(native_request(model))
        except WanError as error:
            # A task may ask for another model; one that asks for this one will fail with this advice.
            log.warning("worker.default_model_not_loaded", error=error.code, message=error.message)
        if self._waits_for is None:
            self._heartbeat.show(self._device, WorkerState.IDLE)
        self._idle_since = time.monotonic()
        return parts.generation

    def _found_device(self, device: str) -> None:
        self._device = device
        self._heartbeat.show(device, WorkerState.LOADING, "trying the device")

    def _claim(self) -> Task | None:
        """Take the next task, or wait a moment."""
        pause = self._settings.poll_seconds
        if self._has_to_wait():
            self._stop.wished.wait(SURROUNDINGS_SECONDS)
            return None
        self._in_hand.set()
        try:
            self._strike_needless_pauses()
            downloads, lease = self._settings.auto_download, self._settings.lease_seconds
            task = self._tasks.claim(self._worker_id, lease, downloads=downloads, without=self._hub.models())
        except StoreFailed as error:
            log.warning("worker.claim_failed", error=error.code)
            task, pause = None, STORE_PAUSE_SECONDS
        if task is None:
            self._in_hand.clear()
            self._stop.wished.wait(pause)
        return task

    def _has_to_wait(self, *, by_wish: bool = True) -> bool:
        """Whether no task may be claimed; publishes why, and when that ends.

        Either its video could not be kept, or, where `by_wish`, the user wants this worker to rest: then it frees its
        memory.
        """
        if self._waits_for is None and time.monotonic() < self._surroundings_due:
            return False
        self._surroundings_due = time.monotonic() + SURROUNDINGS_SECONDS
        before, fault = self._waits_for, self._surroundings.refusal()
        try:
            self._waits_for = fault or ((self._yielding.reason or self._held()) if by_wish else None)
            if fault is not None:
                self._tasks.explain(fault)
            elif before is not None:
                self._tasks.explained(before)
        except StoreFailed as error:  # the database may be on the same disk
            self._waits_for = fault or (self._yielding.reason if by_wish else None)
            log.warning("worker.reason_not_published", error=error.code)
        if self._waits_for != before:
            if self._waits_for is None:
                log.info("worker.continues", reason_gone=before)
                self._heartbeat.show(self._device, WorkerState.IDLE)
            else:
                log.warning("worker.waits", reason=self._waits_for)
                state = WorkerState.WAITING if fault is not None else WorkerState.YIELDING
                self._heartbeat.show(self._device, state, self._waits_for)
        if self._waits_for is not None and fault is None:
            self._unload(self._waits_for)
        return self._waits_for is not None

    def _held(self) -> str | None:
        """Return why the user wants no task to run here."""
        if self._tasks.is_held(self._worker_id):
            return "The queue or this device is paused"
        return None

    def _strike_needless_pauses(self) -> None:
        """Keep forgotten pauses from blocking tasks whose model is complete by now."""
        if self._models is None or not self._settings.auto_download or time.monotonic() < self._pauses_due:
            return
        self._pauses_due = time.monotonic() + PAUSE_CHECK_SECONDS
        self._configuration.refresh()  # as before an attempt
        orders_in_force(self._orders, self._models)

    def _rest(self) -> None:
        """Free the model's memory after a long time without work, or when memory fills up meanwhile."""
        if self._bridge is None or self._watch is None:
            return
        if self._heartbeat.wish is WorkerWish.UNLOAD:
            self._heartbeat.wish = None
            reasons = ["somebody asked for its memory"]
        else:
            reasons = []
        reasons += [alert.sentence for alert in self._watch.take() if alert.level is MemoryLevel.CRITICAL]
        limit = self._settings.idle_unload_seconds
        if limit and time.monotonic() - self._idle_since >= limit:
            reasons.append(f"there was no work for {limit:g} s")
        if reasons and (model := self._unload(reasons[0])) is not None:
            self._heartbeat.show(self._device, WorkerState.IDLE, f"{model} was unloaded: {reasons[0]}")

    def _unload(self, reason: str) -> str | None:
        """Free the memory of the loaded model; return its id, None without one."""
        if self._bridge is None or self._watch is None or (model := self._bridge.loaded_model) is None:
            return None
        self._bridge.unload()
        self._watch.release()
        log.info("worker.model_unloaded", model=model, reason=reason)
        return model

    def _report_alert(self, alert: MemoryAlert, given_up: tuple[str, ...]) -> None:
        attempt = self._heartbeat.attempt
        if attempt is not None:
            attempt.alert(alert, given_up)

    def _run_attempt(self, generation: ModelFallback, task: Task) -> None:
        attempt = Attempt(
            self._tasks,
            task,
            lease_token=task.lease_token or "",
            lease_seconds=self._settings.lease_seconds,
            stopping=self._stop.wished,
            yields=lambda: "Its worker is restarted" if self._restarts else self._yielding.reason,
        )
        with structlog.contextvars.bound_contextvars(task_id=task.id, attempt=task.attempt):
            self._heartbeat.attempt = attempt
            self._heartbeat.show(self._device, WorkerState.BUSY, task.id)
            log.info("task.started", model=task.model)
            self._record(self._generate(generation, attempt))
            self._heartbeat.attempt = None
            self._in_hand.clear()
            self._tidy(self._leftovers.sweep_work)
            self._heartbeat.show(self._device, WorkerState.IDLE)

    def _generate(self, generation: ModelFallback, attempt: Attempt) -> Callable[[], None]:
        """Run the attempt and return the call that records its end."""
        task = attempt.task
        fault = self._surroundings.fault()  # since the last look, too
        if fault is not None:
            return hold(attempt, fault)
        self._configuration.refresh()  # the task may be for a model that was added after this process started
        try:
            request = GenerationRequest.from_json(task.request)
            output = generation.generate(task.id, request, report=attempt.report, poll=attempt.poll, alert=attempt.tell)
        except TaskCancelled:
            log.info("task.cancelled")
            return attempt.acknowledge_cancel
        except TaskPaused:
            log.info("task.paused")
            return attempt.acknowledge_pause
        except TaskHeldUp as error:
            self._surroundings_due = 0.0  # look at once why
            return hold(attempt, error.message)
        except WorkerStopping:
            log.info("task.handed_back")
            return attempt.release
        except DownloadPaused as error:
            log.info("task.handed_back", reason=error.message)
            return partial(attempt.release, error.message)
        except LeaseLost:
            log.warning("task.lease_lost")
            # The files belong to the next attempt now, unless it has already ended and these were written after it.
            return partial(self._leftovers.remove, task.id)
        except Exception as error:  # the boundary of an attempt: whatever happened, the next task must run
            return self._endings.of(attempt, self._errors.explain(error, task))
        self._surroundings.had_room()
        self._hub.served(task.model)
        log.info("task.completed", seconds=output.generation_seconds, bytes=output.size_bytes)
        return partial(attempt.complete, output)

    def _lacks(self, model: str) -> bool:
        """Whether the files of a model are not complete on this machine."""
        return self._bridge is not None and not self._bridge.availability(model).available

    @staticmethod
    def _record(end: Callable[[], None]) -> None:
        try:
            end()
        except (LeaseLost, TaskNotFound):
            log.warning("task.end_is_void", reason="the task no longer belongs to this worker")
        except StoreFailed as error:
            log.error("task.end_not_recorded", error=error.code, reason="the lease will run out and the task run again")

    @staticmethod
    def _tidy(sweep: Callable[[], None]) -> None:
        """Remove what ended tasks left: this one's, and those of tasks that were cancelled while they waited."""
        try:
            sweep()
        except StoreFailed as error:
            log.warning("worker.not_tidied", error=error.code)
        except OSError as error:  # a disk that is gone or read-only; a later sweep finds the same files
            log.warning("worker.not_tidied", error=str(error))

    def _end_stalled(self, attempt: Attempt, stall: Stall) -> NoReturn:
        """End this process, whose engine no longer moves: nothing else gets a hung kernel off the device."""
        log.error("worker.stalled", task_id=attempt.task.id, **asdict(stall))
        faulthandler.dump_traceback(all_threads=True)
        loss = Loss(stall.reason, innermost_calls(threading.main_thread()), WorkerStalled)
        try:
            self._record(partial(attempt.lose, loss))
            self._tidy(partial(self._leftovers.remove, attempt.task.id))
        finally:
            os._exit(STALLED_STATUS)

    def _hand_back(self) -> None:
        """Hand the task back while the engine is still inside a step; the process ends right after this."""
        attempt = self._heartbeat.attempt
        if attempt is not None:
            self._record(attempt.release)
            self._tidy(partial(self._leftovers.remove, attempt.task.id))
