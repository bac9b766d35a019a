"""Models that the hub does not serve: how long their tasks wait, and what ends the wait."""

from __future__ import annotations

from backend.worker.absent_hub import AbsentHub
from tests.support.server import wait_for

DEADLINE_SECONDS = 60.0


class Line:
    """The way to the hub, and the time."""

    answers = False
    asked = 0
    now = 0.0

    def ask(self) -> bool:
        self.asked += 1
        return self.answers

    def clock(self) -> float:
        return self.now


def test_a_model_waits_for_its_pause_and_for_the_hub() -> None:
    line = Line()
    hub = AbsentHub(line.ask, line.clock, probe_seconds=0.01)
    assert hub.models() == frozenset()
    hub.failed("T2V-A14B")
    hub.failed("I2V-A14B")
    line.now += 3600.0
    wait_for(lambda: line.asked > 2, seconds=DEADLINE_SECONDS, what="questions to the hub")
    assert hub.models() == {"T2V-A14B", "I2V-A14B"}, "no time helps while the hub is away"
    line.answers = True
    wait_for(lambda: not hub.models(), seconds=DEADLINE_SECONDS, what="the end of the wait")
    hub.stop()


def test_each_failure_of_a_hub_that_answers_doubles_the_pause() -> None:
    line = Line()
    line.answers = True
    hub = AbsentHub(line.ask, line.clock, probe_seconds=0.01)
    for pause in (5.0, 10.0, 20.0):
        before = line.asked
        hub.failed("T2V-A14B")
        wait_for(lambda before=before: line.asked > before, seconds=DEADLINE_SECONDS, what="a question")
        line.now += pause - 1.0
        assert hub.models() == {"T2V-A14B"}
        line.now += 1.0
        wait_for(lambda: not hub.models(), seconds=DEADLINE_SECONDS, what="the end of the pause")
    hub.served("T2V-A14B")
    hub.failed("T2V-A14B")
    line.now += 5.0
    wait_for(lambda: not hub.models(), seconds=DEADLINE_SECONDS, what="the end of the first pause")
    hub.stop()
