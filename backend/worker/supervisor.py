"""Keeps one worker process alive: starts it, restarts it with growing pauses, gives up loudly.

Runs inside the web process, so it must not import the engine. It knows the worker by its process and
its row in the register; tasks of a dead worker return to the queue at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

import psutil
import structlog

from backend.core.errors.generation import OutOfMemory, WorkerLost
from backend.core.errors.surroundings import StoreFailed
from backend.core.settings import ENV_PREFIX, Settings
from backend.store.engine import Database
from backend.store.leases import DIED, Loss
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerInfo, WorkerState, WorkerStore, new_worker_id
from backend.worker.last_words import LastWords, memory_kills
from backend.worker.silence import SilenceWatch
from backend.worker.stop import DEVICE_FAILED_STATUS, DUMP_SIGNAL, RESTART_STATUS

#: The longest pause before a restart, in seconds.
MAX_BACKOFF_SECONDS = 30.0
#: Leases that a worker of this process may miss before it counts as hung. Its process is known to exist, so what it
#: misses is most likely time: on a loaded machine, or while it reads a large file.
HUNG_LEASES = 4
#: How long a worker that is about to be killed gets to write the stacks of its threads, in seconds.
DUMP_SECONDS = 0.5

log = structlog.get_logger(__name__)


class SupervisorStatus(StrEnum):
    """What the supervisor is doing."""

    STARTING = "starting"  # has not started a worker yet
    RUNNING = "running"  # a worker process exists
    BACKOFF = "backoff"  # waits before it starts the next one
    DEFUNCT = "defunct"  # gave up; tasks stay in the queue
    STOPPED = "stopped"  # was asked to stop


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The supervisor at one moment."""

    status: SupervisorStatus = SupervisorStatus.STARTING
    restarts: int = 0
    pid: int | None = None
    worker_id: str | None = None
    reason: str | None = None  #: why the latest worker ended


class Supervisor:
    """One worker process and the thread that watches it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, checkpointer=False, creates=False)
        self._tasks = TaskStore(self._database)
        self._workers = WorkerStore(self._database)
        self._watch = SilenceWatch(self._tasks, settings.recovery_seconds)
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # between starting a process and being asked to stop
        self._process: subprocess.Popen[bytes] | None = None
        self._last_words: LastWords | None = None  #: of the process
        self._asked_at = 0.0  # to stop
        self._memory_kills = 0  # of the kernel, when the worker was started
        self._memory_ran_out = False  #: whether the kernel ended the worker for that
        self._device_failed = False  #: whether the worker ended because its device failed
        self._replaced = False  #: whether the worker was ended or restarted on purpose, which is no failure of it
        self._deaths: deque[tuple[float, str]] = deque()  # when (monotonic), and what to blame
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._state = SupervisorState()

    @property
    def state(self) -> SupervisorState:
        """The newest state; safe to read from any thread."""
        return self._state

    def start(self) -> None:
        """Recover the tasks of dead workers of this machine, and start the worker. The schema must exist."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask the worker to hand its task back and end; returns at once. Idempotent."""
        with self._lock:
            if not self._stopping.is_set():
                self._asked_at = time.monotonic()
                self._stopping.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker's process, whatever it does."""
        process = self._process
        if process is not None and process.poll() is None:
            log.warning("supervisor.worker_killed", pid=process.pid)
            process.kill()

    def stop(self, grace: float | None = None) -> None:
        """Ask the worker to hand its task back and end; kill it `grace` seconds after the first request. Idempotent."""
        self.ask_to_stop()
        process = self._process
        if process is not None and process.poll() is None:
            seconds = self._settings.stop_grace_seconds if grace is None else grace
            try:
                process.wait(max(0.0, self._asked_at + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill()
        if self._thread.ident is not None:
            self._thread.join()
        self._database.close()
        self._state = replace(self._state, status=SupervisorStatus.STOPPED, pid=None)

    def _run(self) -> None:
        try:
            self._collect_dead_workers()
        except Exception:  # the boundary of the thread: without it, nobody would start a worker again
            log.exception("supervisor.recovery_failed")
        while not self._stopping.is_set():
            try:
                self._live_once()
            except Exception:
                log.exception("supervisor.failed")
                self.kill()  # whatever happened to it, there must not be a second one beside it
                self._stopping.wait(MAX_BACKOFF_SECONDS)

    def _live_once(self) -> None:
        """Run one worker from its start to its end, and take care of what it leaves."""
        worker_id = new_worker_id()
        self._replaced = self._device_failed = self._memory_ran_out = False
        reason = self._live(worker_id)
        quote = None if self._last_words is None else self._last_words.quote()
        blame, detail = self._collect_dead(
            worker_id, Loss(reason, quote, OutOfMemory if self._memory_ran_out else WorkerLost)
        )
        if self._device_failed and detail:
            blame = detail  # it names the task, which counts once, however often the device failed with it
        if not self._stopping.is_set() and not self._replaced:
            self._pause_before_restart(blame, f"{reason} ({detail})" if detail else reason)

    def _live(self, worker_id: str) -> str:
        """Start a worker and watch it until it ends; return how it ended."""
        try:
            process = self._spawn(worker_id)
        except OSError as error:  # no memory or no file descriptors for another process
            return f"the worker could not be started: {error.strerror}"
        while process is not None:
            try:
                code = process.wait(self._settings.recovery_seconds)
            except subprocess.TimeoutExpired:
                try:
                    self._look_after(process, worker_id)
                except Exception:  # the worker may be in order, and is watched on
                    log.exception("supervisor.check_failed", worker_id=worker_id)
                continue
            if process.stdin is not None:
                process.stdin.close()
            log.warning("supervisor.worker_ended", pid=process.pid, worker_id=worker_id, code=code)
            if code == RESTART_STATUS:
                self._replaced = True
                return "the worker was restarted on request"
            if code == DEVICE_FAILED_STATUS:
                self._device_failed = True
                return "the worker ended because its device failed"
            if code == -signal.SIGKILL and memory_kills() > self._memory_kills:
                self._memory_ran_out = True
                return "the kernel ended the worker because memory ran out"
            return f"the worker ended with {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
        return "the server stops"

    def _spawn(self, worker_id: str) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            # The pipe shows the worker that we are gone, however we ended. A group of its own, so that
            # Ctrl-C in a terminal reaches it only through `stop`.
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "worker", "--worker-id", worker_id],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | as_environment(self._settings),
                process_group=0,
            )
            self._memory_kills = memory_kills()
            self._last_words = None if process.stderr is None else LastWords(process.stderr)
        running = SupervisorStatus.RUNNING
        self._state = replace(self._state, status=running, pid=process.pid, worker_id=worker_id)
        log.info("supervisor.worker_started", pid=process.pid, worker_id=worker_id)
        return process

    def _pause_before_restart(self, blame: str, reason: str) -> None:
        """Wait before the next start; forever after too many restarts."""
        now = time.monotonic()
        self._deaths.append((now, blame))
        while now - self._deaths[0][0] > self._settings.restart_window_seconds:
            self._deaths.popleft()
        # A task that kills its worker in each of its attempts counts once: attempts are limited already,
        # and two such tasks must not cost the rest of the night.
        if len({whom for _, whom in self._deaths}) > self._settings.restart_limit:
            self._state = replace(self._state, status=SupervisorStatus.DEFUNCT, pid=None, reason=reason)
            log.error("supervisor.defunct", reason=reason, restarts=self._state.restarts)
            while not self._stopping.wait(self._settings.recovery_seconds):
                self._recover()
            return
        pause = min(MAX_BACKOFF_SECONDS, self._settings.restart_backoff_seconds * 2 ** (len(self._deaths) - 1))
        self._state = replace(
            self._state,
            status=SupervisorStatus.BACKOFF,
            restarts=self._state.restarts + 1,
            pid=None,
            reason=reason,
        )
        log.warning("supervisor.restarting", reason=reason, pause_seconds=pause)
        self._stopping.wait(pause)

    def _collect_dead(self, worker_id: str, loss: Loss) -> tuple[str, str | None]:
        """Recover a dead worker's tasks; return what to blame (its task, or itself) and its last detail."""
        try:
            if self._stopping.is_set():  # it was ended by the operator, not by its task
                recovered = self._tasks.hand_back(worker_id)
            else:
                recovered = self._tasks.recover_worker(worker_id, loss)
            register = next((worker for worker in self._workers.list() if worker.id == worker_id), None)
            self._workers.remove(worker_id)
        except StoreFailed as error:
            log.warning("supervisor.recovery_failed", error=error.code)  # the lease will expire
            return worker_id, None
        if recovered:
            log.warning("supervisor.recovered", worker_id=worker_id, tasks=recovered)
            return recovered[0], f"while it worked on {recovered[0]}"
        return _blame(worker_id, register), None if register is None else register.detail

    def _collect_dead_workers(self) -> None:
        """Recover the tasks of workers that an earlier server left behind."""
        try:
            dead = [worker.id for worker in self._workers.list() if worker.is_dead()]
        except StoreFailed as error:
            log.warning("supervisor.recovery_failed", error=error.code)
            return
        for worker_id in dead:
            self._collect_dead(worker_id, DIED)

    def _recover(self, own: str | None = None) -> bool:
        """Take back the tasks of silent workers other than `own`; return whether the database answered."""
        try:
            self._watch.recover(self._settings.lease_seconds, except_of=own)
        except StoreFailed as error:
            log.warning("supervisor.recovery_failed", error=error.code)
            return False
        return True

    def _look_after(self, process: subprocess.Popen[bytes], worker_id: str) -> None:
        """Recover other workers' tasks, and end the own worker when it does not answer any more.

        As long as it lives and may answer, it keeps its task: only its end gives the task to somebody else.
        """
        if not self._recover(worker_id):
            return
        if any(one.worker_id == worker_id for one in self._watch.deaf(self._settings.cancel_grace_seconds)):
            # Its task ends as cancelled when its process is collected, and nobody has to wait for a new worker.
            log.warning("supervisor.worker_replaced", pid=process.pid, reason="a cancelled task did not stop")
            self._replaced = True
            _kill_with_stacks(process)
            return
        own = [
            one for one in self._watch.silent(HUNG_LEASES * self._settings.lease_seconds) if one.worker_id == worker_id
        ]
        if own and not _is_suspended(process.pid):
            with suppress(StoreFailed):  # where nothing can be written, silence proves nothing
                if self._watch.take_back(own):
                    log.warning("supervisor.worker_replaced", pid=process.pid, reason="it hangs")
                    _kill_with_stacks(process)


def _kill_with_stacks(process: subprocess.Popen[bytes]) -> None:
    """Let a worker that hangs write where it hangs, and end it."""
    process.send_signal(DUMP_SIGNAL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(DUMP_SECONDS)
    process.kill()


def _blame(worker_id: str, register: WorkerInfo | None) -> str:
    """Return the task that a worker had in hand when it ended itself, or the worker."""
    busy = register is not None and register.state is WorkerState.BUSY and register.detail
    return busy or worker_id


def _is_suspended(pid: int) -> bool:
    """Whether somebody stopped the process, for a debugger or to free the machine; it will continue."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the explicit settings as environment variables, so that the worker has the same."""
    given = settings.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, exclude={"api_key", "webhook_secret"}
    )
    return {
        ENV_PREFIX + name.upper(): value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
    }
