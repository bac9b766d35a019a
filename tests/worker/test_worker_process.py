"""What happens to tasks when worker processes die, hang or are stopped. Real processes, real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import update

from backend.core.domain import EventType, TaskStatus
from backend.core.errors.surroundings import StoreUnavailable
from backend.store.download_orders import DownloadOrders
from backend.store.tables import tasks
from backend.store.workers import WorkerState
from backend.worker.leftovers import Leftovers
from backend.worker.runner import STALLED_STATUS
from backend.worker.silence import SilenceWatch
from backend.worker.supervisor import Supervisor, SupervisorStatus, as_environment
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)  # several process starts in one test, on a busy machine
Supervise = Callable[..., Supervisor]
HANG_WHILE_DENOISING = "denoise.step:1=hang"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped; a thread waiting for a core is not."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False  # a thread ended during the check
    return set(states) == {"T"}


def freeze_between_writes(queue: Queue, process: subprocess.Popen[bytes]) -> None:
    """Stop a process outside its transactions: inside one it would block all other writers."""
    while True:
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(process.pid), seconds=START_SECONDS, what="the stop of every thread")
        try:
            with queue.database.begin():
                return
        except StoreUnavailable:
            process.send_signal(signal.SIGCONT)


def test_01_a_task_killed_while_denoising_resumes_where_it_was(
    queue: Queue, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.submit()
    with monkeypatch.context() as first_worker_only:
        first_worker_only.setenv("WAN22_FAULTS", "denoise.step:4=hang")
        supervisor = supervise()
        victim = queue.wait_denoising(task.id)
        # Two of the four steps are the high-noise expert's; the state is saved when the other one's turn comes.
        wait_for(lambda: queue.states(task.id) == [2], seconds=START_SECONDS, what="a saved state")
        wait_for(lambda: queue.saved_step(task.id) == 2, seconds=START_SECONDS, what="its report")
    os.kill(victim.pid, signal.SIGKILL)

    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.attempt == 2
    assert done.worker_id != victim.id
    lost = next(event for event in queue.events.of_task(task.id) if event.type is EventType.ATTEMPT_LOST)
    assert lost.data.pop("last_words")
    assert lost.data.pop("step") >= 2
    assert lost.data == {
        "attempt": 1,
        "stage": "generating",
        "reason": "the worker ended with SIGKILL",
        "strikes": 0,  # it had saved a state
        "will_retry": True,
    }
    told = [event.data["message"] for event in queue.events.of_task(task.id) if event.type is EventType.PROGRESS]
    assert "Resumed at step 2 of 4" in told
    steps = [text.partition(" (")[0] for text in told if text.startswith("Step ")]
    assert steps.count("Step 1 of 4") <= 1, "no step before the saved state runs again"
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == 2
    wait_for(lambda: not any(queue.home.work.iterdir()), seconds=START_SECONDS, what="the end of the states")
    assert queue.types(task.id).count(EventType.COMPLETED) == 1
    assert queue.videos() == [f"{task.id}.mp4"]
    assert queue.outputs.video_path(task.id).stat().st_size == queue.outputs.get(task.id).size_bytes
    assert queue.leftovers() == []
    assert [worker.id for worker in queue.workers.list()] == [supervisor.state.worker_id]
    assert supervisor.state.restarts == 1
    assert "SIGKILL" in (supervisor.state.reason or "")


def test_how_often_a_state_is_saved_is_a_setting(queue: Queue) -> None:
    task = queue.submit(steps=8)
    worker = queue.start_worker("first", WAN22_STATE_SECONDS="0", WAN22_FAULTS="denoise.step:4=kill")
    assert worker.wait(START_SECONDS) == -signal.SIGKILL
    assert queue.states(task.id) == [2, 3], "one after every step, of which two are kept"
    told = [event.data for event in queue.events.of_task(task.id) if event.type is EventType.PROGRESS]
    assert {1, 2, 3} <= {data["current_step"] for data in told}, "what is saved is in the event log at once"


#: Where a worker may die, in the order in which it passes.
DEADLY_POINTS = (
    "claim.after_commit",
    "model.load",
    "encode.text",
    "denoise.step:3",
    "decode.chunk:2",
    "encode.part",
    "output.before_rename",
    "output.after_rename",
    "finish.before_commit",
    "finish.after_commit",
)


def die_at_every_point(queue: Queue) -> None:
    """Let one worker after the other die with a task, each at another point; the task must end once."""
    task = queue.submit(max_attempts=len(DEADLY_POINTS))
    for number, point in enumerate(DEADLY_POINTS):
        worker = queue.start_worker(f"w{number}", WAN22_FAULTS=f"{point}=kill")
        assert worker.wait(START_SECONDS) == -signal.SIGKILL, point
        held = point not in ("model.load", "finish.after_commit")  # before it has a task, and when that is done
        assert queue.tasks.recover_worker(f"w{number}") == ([task.id] if held else [])
    done = queue.tasks.get(task.id)
    assert (done.status, done.attempt) == (TaskStatus.COMPLETED, len(DEADLY_POINTS) - 1)
    assert queue.types(task.id).count(EventType.COMPLETED) == 1
    assert [output.task_id for output in queue.outputs.list()] == [task.id]
    assert queue.videos() == [f"{task.id}.mp4"]
    Leftovers(queue.home, queue.tasks, queue.outputs).sweep()  # as the next worker does at its start
    assert queue.leftovers() == []


def test_02_a_task_whose_worker_is_killed_at_every_point_in_turn_ends_once(queue: Queue) -> None:
    """The other points, on the side of the submit, are in tests/store/test_concurrency.py."""
    die_at_every_point(queue)


def test_04_a_task_that_always_kills_its_worker_fails_and_the_next_one_runs(
    queue: Queue, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN22_FAULTS", "decode.chunk:3=kill")
    deadly = queue.submit(frames=9, max_attempts=2)
    harmless = queue.submit(steps=4)
    supervisor = supervise(restart_limit=1)  # all deaths belong to one task, so they count once
    failed = queue.wait_status(deadly.id, TaskStatus.FAILED, seconds=3 * START_SECONDS)
    queue.wait_status(harmless.id, TaskStatus.COMPLETED)
    assert failed.error_code == "worker_lost"
    assert failed.attempt == 3, "the first one saved states, and so was no strike"
    assert "2 attempts in a row made no progress" in (failed.error_message or "")
    assert "the worker ended with SIGKILL while it decoded the frames" in (failed.error_message or "")
    assert "Its last words: " in (failed.error_message or "")
    assert queue.types(deadly.id).count(EventType.ATTEMPT_LOST) == 3
    assert queue.videos() == [f"{harmless.id}.mp4"]
    assert queue.leftovers() == []
    assert supervisor.state.status is SupervisorStatus.RUNNING


def test_06_a_worker_that_hangs_is_replaced_and_its_task_resumes(
    queue: Queue, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    task = queue.submit(steps=8, max_attempts=1)
    with monkeypatch.context() as first_worker_only:
        first_worker_only.setenv("WAN22_FAULTS", "denoise.step:6=hang")  # in the second step of the low-noise expert
        supervise(stall_seconds=1.0, restart_limit=1)
        hung = queue.wait_denoising(task.id)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.worker_id != hung.id
    assert is_gone(hung.pid)
    lost = next(event for event in queue.events.of_task(task.id) if event.type is EventType.ATTEMPT_LOST)
    assert "there was no sign of progress for" in lost.data["reason"]
    assert (lost.data["stage"], lost.data["step"], lost.data["strikes"]) == ("generating", 5, 0)
    assert "fault_point (faults.py:" in lost.data["last_words"]
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == 3, "at the switch between the experts"
    log = capfd.readouterr().err
    assert "worker.stalled" in log
    assert "in fault_point" in log, "the stacks of all threads"
    assert "heartbeat.py" in log


def test_a_task_that_hangs_at_the_same_place_is_given_up(queue: Queue) -> None:
    task = queue.submit(steps=8, max_attempts=1)
    with queue.database.begin() as connection:  # as if an attempt had saved all there is to save
        connection.execute(update(tasks).values(saved_step=8))
    worker = queue.start_worker("first", WAN22_FAULTS="denoise.step:2=hang", WAN22_STALL_SECONDS="0.5")
    assert worker.wait(START_SECONDS) == STALLED_STATUS
    failed = queue.tasks.get(task.id)
    assert (failed.status, failed.error_code) == (TaskStatus.FAILED, "worker_stalled")
    assert "while it denoised, after step 1 of 8. Its last words: " in (failed.error_message or "")
    assert queue.leftovers() == []


def test_a_kill_after_the_rename_leaves_one_output(queue: Queue, supervise: Supervise) -> None:
    task = queue.submit()
    worker = queue.start_worker("first", WAN22_FAULTS="finish.before_commit:1=kill")
    assert worker.wait(START_SECONDS) == -signal.SIGKILL
    assert queue.tasks.get(task.id).status is TaskStatus.PROCESSING
    assert queue.outputs.list() == []

    supervise()  # finds that the first worker is dead long before its lease runs out
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert queue.worker(done.worker_id).model == done.model  # it stays warm for the next task
    assert [output.task_id for output in queue.outputs.list()] == [task.id]
    assert queue.videos() == [f"{task.id}.mp4"]


def test_a_worker_handles_a_cancel_continues_and_is_stopped(queue: Queue) -> None:
    """One worker runs a task that the user cancels, one that completes, and one that the operator interrupts."""
    cancelled = queue.submit(steps=100, frames=65)
    worker = queue.start_worker("first")
    queue.wait_denoising(cancelled.id)
    queue.tasks.request_cancel(cancelled.id)
    completed = queue.submit()
    queue.wait_status(cancelled.id, TaskStatus.CANCELLED)
    queue.wait_status(completed.id, TaskStatus.COMPLETED)
    assert queue.leftovers() == []

    def of_others() -> set[str]:
        return {path.name for path in queue.home.work.iterdir()} - {cancelled.id}

    wait_for(lambda: not of_others(), seconds=START_SECONDS, what="the end of the states of the completed one")

    stopped = queue.submit(steps=100, frames=65)
    queue.wait_denoising(stopped.id)
    wait_for(lambda: (queue.tasks.get(stopped.id).step or 0) > 0, seconds=START_SECONDS, what="a step")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(START_SECONDS) == 0
    assert max(queue.states(stopped.id)) >= 1, "it saved what it had"
    back = queue.tasks.get(stopped.id)
    assert (back.status, back.attempt) == (TaskStatus.PENDING, 0)
    assert queue.types(stopped.id)[-1] is EventType.RELEASED
    assert queue.leftovers() == []
    assert queue.videos() == [f"{completed.id}.mp4"]
    assert queue.workers.list() == []


def test_a_hung_worker_returns_its_task_when_stopped(queue: Queue) -> None:
    task = queue.submit()
    worker = queue.start_worker("first", WAN22_FAULTS=HANG_WHILE_DENOISING, WAN22_STOP_GRACE_SECONDS="0.5")
    queue.wait_denoising(task.id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(START_SECONDS) == 1
    back = queue.tasks.get(task.id)
    assert (back.status, back.attempt) == (TaskStatus.PENDING, 0)
    assert queue.leftovers() == []


def test_07_a_zombie_is_fenced(queue: Queue) -> None:
    """Stopped by SIGSTOP until another worker has finished its task: what it does after SIGCONT is void."""
    task = queue.submit(steps=100, frames=65)
    zombie = queue.start_worker("zombie")
    queue.wait_denoising(task.id)
    freeze_between_writes(queue, zombie)
    assert queue.tasks.recover_worker("zombie") == [task.id]  # as when its lease runs out
    queue.start_worker("second")
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.worker_id == "second"
    recorded = queue.outputs.get(task.id)
    zombie.send_signal(signal.SIGCONT)
    wait_for(lambda: queue.worker("zombie").state is WorkerState.IDLE, seconds=START_SECONDS, what="the zombie's end")
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(START_SECONDS) == 0
    assert queue.types(task.id).count(EventType.COMPLETED) == 1
    assert queue.outputs.list() == [recorded]
    assert queue.outputs.video_path(task.id).stat().st_size == recorded.size_bytes
    assert queue.leftovers() == []


def test_a_living_worker_that_was_frozen_keeps_its_task_and_its_attempt(queue: Queue, supervise: Supervise) -> None:
    task = queue.submit(steps=100, frames=33)
    supervisor = supervise(lease_seconds=1.0)
    worker = queue.wait_denoising(task.id)
    before = queue.worker(worker.id).seen_at
    with queue.database.begin():  # it is in no transaction of its own
        os.kill(worker.pid, signal.SIGSTOP)
        wait_for(lambda: is_stopped(worker.pid), seconds=START_SECONDS, what="the stop of every thread")
    observer = SilenceWatch(queue.tasks, 0.2)

    def silent_for_long() -> bool:
        observer.look()
        return bool(observer.silent(5.0))  # more than the four leases after which a worker counts as hung

    wait_for(silent_for_long, seconds=START_SECONDS, what="a long silence")
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: queue.worker(worker.id).seen_at > before, seconds=START_SECONDS, what="a heartbeat")
    queue.tasks.request_cancel(task.id)
    queue.wait_status(task.id, TaskStatus.CANCELLED)
    assert EventType.ATTEMPT_LOST not in queue.types(task.id)
    assert supervisor.state.worker_id == worker.id
    assert supervisor.state.restarts == 0


def test_a_worker_that_does_not_obey_a_cancel_is_replaced_in_every_phase(
    queue: Queue, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def hangs(point: str) -> bool:
        said.append(capfd.readouterr().err)
        return f"hangs at {point.partition(':')[0]}\n" in "".join(said)

    stages = {
        "model.load:2": "loading_model",  # a worker loads the first one before it has a task
        "encode.text": "preparing_inputs",
        "denoise.step": "generating",
        "decode.chunk": "post_processing",
        "output.before_rename": "saving",
    }
    points = list(stages)
    monkeypatch.setenv("WAN22_FAULTS", f"{points[0]}=hang")
    supervisor = supervise(cancel_grace_seconds=0.5, restart_limit=0)
    for point, following in zip(points, [*points[1:], "none"], strict=True):
        task = queue.submit(model="tiny-ti2v-5b" if point == "model.load:2" else "tiny-t2v-a14b")
        stage = stages[point]
        wait_for(lambda: queue.tasks.get(task.id).stage == stage, seconds=START_SECONDS, what=stage)  # noqa: B023
        # Before it hangs it may still ask whether to stop, and obey.
        wait_for(lambda: hangs(point), seconds=START_SECONDS, what=f"the hang at {point}")  # noqa: B023
        worker = queue.worker(queue.tasks.get(task.id).worker_id)
        monkeypatch.setenv("WAN22_FAULTS", f"{following}=hang")  # of the worker that takes its place
        queue.tasks.request_cancel(task.id)
        queue.wait_status(task.id, TaskStatus.CANCELLED)
        wait_for(lambda: is_gone(worker.pid), seconds=START_SECONDS, what="its end")  # noqa: B023
    wait_for(
        lambda: supervisor.state.worker_id != worker.id, seconds=START_SECONDS, what="the worker that takes its place"
    )
    assert supervisor.state.status is SupervisorStatus.RUNNING
    assert supervisor.state.restarts == 0, "it is not the worker's fault"
    wait_for(lambda: not queue.leftovers(), seconds=START_SECONDS, what="the sweep of the worker that takes its place")


def test_a_worker_waits_for_the_hub_and_for_its_disk_and_no_task_pays_for_it(queue: Queue) -> None:
    absent, here = queue.submit(model="T2V-A14B"), queue.submit()
    queue.start_worker("first", HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens there
    queue.wait_status(here.id, TaskStatus.COMPLETED)
    waiting = queue.tasks.get(absent.id)
    assert (waiting.status, waiting.attempt) == (TaskStatus.PENDING, 0)
    assert "model hub cannot be reached" in (waiting.message or "")

    queue.tasks.request_cancel(absent.id)
    elsewhere = queue.home.root / "elsewhere"
    queue.home.outputs.rename(elsewhere)
    held = queue.submit()
    wait_for(lambda: queue.worker("first").state is WorkerState.WAITING, seconds=START_SECONDS, what="the wait")
    wait_for(lambda: queue.tasks.get(held.id).message, seconds=START_SECONDS, what="the reason")
    assert "`outputs` in the home folder is missing" in (queue.tasks.get(held.id).message or "")
    assert not queue.home.outputs.exists(), "nothing is written where the folder was"
    assert queue.tasks.get(held.id).attempt == 0
    elsewhere.rename(queue.home.outputs)
    done = queue.wait_status(held.id, TaskStatus.COMPLETED)
    assert done.attempt == 1
    assert queue.videos() == sorted(f"{task.id}.mp4" for task in (here, held))


def test_a_pause_holds_up_no_task_that_needs_no_download(queue: Queue) -> None:
    orders = DownloadOrders(queue.database)
    missing, gone, here = (queue.submit(model=model) for model in ("T2V-A14B", "taken-out", "tiny-t2v-a14b"))
    for task in (missing, gone, here):
        orders.pause(task.model, wished=False)
    queue.start_worker("first", WAN22_AUTO_DOWNLOAD="false")
    queue.wait_status(here.id, TaskStatus.COMPLETED)
    errors = [queue.wait_status(task.id, TaskStatus.FAILED).error_code for task in (missing, gone)]
    assert errors == ["model_not_available", "unknown_model"], "they fail with their advice instead of waiting for ever"
    assert len(orders.list()) == 3, "what somebody ordered elsewhere stays"


def test_an_idle_worker_ends_the_pauses_of_models_that_need_no_download(queue: Queue) -> None:
    orders = DownloadOrders(queue.database)
    missing, gone, here = (queue.submit(model=model) for model in ("T2V-A14B", "taken-out", "tiny-t2v-a14b"))
    for task in (missing, gone, here):
        orders.pause(task.model, wished=False)
    queue.start_worker("first")
    queue.wait_status(here.id, TaskStatus.COMPLETED)
    assert queue.wait_status(gone.id, TaskStatus.FAILED).error_code == "unknown_model"
    assert queue.tasks.get(missing.id).download_paused
    assert [order.model for order in orders.list()] == [missing.model]


def test_a_worker_does_not_outlive_its_server(queue: Queue) -> None:
    task = queue.submit(steps=100, frames=65)
    program = (
        "import threading\n"
        "from backend.core.settings import load_settings\n"
        "from backend.worker.supervisor import Supervisor\n"
        "Supervisor(load_settings()).start()\n"
        "threading.Event().wait()\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program], env=os.environ | as_environment(queue.settings))
    try:
        worker = queue.wait_denoising(task.id)
    finally:
        server.kill()
        server.wait()
    wait_for(lambda: is_gone(worker.pid), seconds=START_SECONDS, what="the end of the orphan")
    back = queue.tasks.get(task.id)
    assert (back.status, back.attempt) == (TaskStatus.PENDING, 0)
    assert queue.leftovers() == []


def test_an_idle_worker_unloads_its_model_and_loads_it_again(queue: Queue) -> None:
    queue.start_worker("first", WAN22_IDLE_UNLOAD_SECONDS="0.3")
    wait_for(
        lambda: any("was unloaded: there was no work for 0.3 s" in (one.detail or "") for one in queue.workers.list()),
        seconds=START_SECONDS,
        what="the model's end",
    )
    worker = queue.worker("first")
    assert (worker.state, worker.model) == (WorkerState.IDLE, None)
    task = queue.submit()
    queue.wait_status(task.id, TaskStatus.COMPLETED)
    result = queue.outputs.get(task.id).metadata["result"]
    assert result["peak_ram_bytes"] > 100 * 1024**2
    assert result["peak_vram_bytes"] is None or result["peak_vram_bytes"] > 0
    wait_for(lambda: queue.worker("first").model is None, seconds=START_SECONDS, what="the model's second end")
