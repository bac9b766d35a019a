"""The hours of generation: windows over midnight, days, and changes of the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from backend.core.config.file import ConfigFile
from backend.core.config.schedule import Schedule, stored_schedule
from backend.core.errors.requests import InvalidRequest
from backend.core.paths import Home

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the local time zone of this process."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def schedule(*windows: str) -> Schedule:
    return Schedule.from_json({"generate": list(windows)})


def berlin(day: int, month: int, hour: int, minute: int = 0, fold: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN, fold=fold)


def test_without_windows_workers_always_generate() -> None:
    assert schedule().is_open(datetime.now(UTC))
    assert Schedule.from_json({}) == schedule()


@pytest.mark.parametrize(
    ("hour", "minute", "is_open"), [(21, 59, False), (22, 0, True), (0, 0, True), (6, 59, True), (7, 0, False)]
)
def test_a_window_may_go_over_midnight(zone: Callable[[str], None], hour: int, minute: int, is_open: bool) -> None:
    zone("Europe/Berlin")
    assert schedule("22:00-07:00").is_open(berlin(10, 6, hour, minute)) is is_open


def test_the_hours_are_local_whatever_the_zone_of_the_moment(zone: Callable[[str], None]) -> None:
    moment = datetime(2026, 6, 10, 20, 30, tzinfo=UTC)
    zone("Europe/Berlin")
    assert schedule("22:00-07:00").is_open(moment)
    zone("America/New_York")
    assert not schedule("22:00-07:00").is_open(moment)


def test_days_are_those_on_which_a_window_starts(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")
    nights = schedule("Fri-Sat 22:00-07:00", "sun 00:00-24:00")
    assert nights.is_open(berlin(12, 6, 23))  # a Friday
    assert nights.is_open(berlin(13, 6, 3)), "the night that began on Friday"
    assert nights.is_open(berlin(14, 6, 23, 59))
    assert not nights.is_open(berlin(15, 6, 0))
    assert not nights.is_open(berlin(12, 6, 3))
    assert schedule("Sat-Mon 10:00-11:00").is_open(berlin(15, 6, 10)), "days may go around the end of the week"


def test_the_next_opening_is_told(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")
    assert schedule("22:00-07:00").opens_at(berlin(10, 6, 12, 34)) == berlin(10, 6, 22)
    assert schedule("Mon 08:00-09:00").opens_at(berlin(8, 6, 9)) == berlin(15, 6, 8)


def test_hours_that_the_clock_skips_open_when_it_has_jumped(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")  # on 29 March 2026, 01:59 is followed by 03:00
    assert schedule("02:30-05:00").opens_at(berlin(29, 3, 1)) == berlin(29, 3, 3)
    # Hours that do not exist on that day open on the next one.
    assert schedule("02:10-02:50").opens_at(berlin(29, 3, 1)) == berlin(30, 3, 2, 10)
    opened, closed = berlin(28, 3, 22).astimezone(UTC), berlin(29, 3, 7).astimezone(UTC)
    assert closed - opened == timedelta(hours=8), "the night is one hour shorter"
    assert schedule("22:00-07:00").is_open(closed - timedelta(minutes=1))
    assert not schedule("22:00-07:00").is_open(closed)


def test_hours_that_the_clock_repeats_are_open_twice(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")  # on 25 October 2026, 02:59 is followed by 02:00
    window = schedule("02:30-03:00")
    first = berlin(25, 10, 2, 30).astimezone(UTC)
    opened = [offset for offset in range(0, 120, 10) if window.is_open(first + timedelta(minutes=offset))]
    assert opened == [0, 10, 20, 60, 70, 80]
    assert window.opens_at(first + timedelta(minutes=30)) == first + timedelta(hours=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-07",
        "22:00",
        "25:00-26:00",
        "10:60-11:00",
        "10:00-10:00",
        "24:00-07:00",
        "Fry 10:00-11:00",
        "٠١:00-02:00",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="windows such as"):
        schedule(text)


def test_a_section_that_cannot_be_used_leaves_workers_generating(tmp_path_home: Home) -> None:
    file = ConfigFile(tmp_path_home.config_file)
    file.path.write_text('{"schedule": {"generate": ["midnight"], "pause": []}}')
    stored = stored_schedule(file)
    assert stored.current() == Schedule()
    faults = stored.faults()
    assert len(faults) == 2
    assert any("`schedule.generate` is ignored" in fault.sentence for fault in faults)


@pytest.fixture
def tmp_path_home(tmp_path) -> Home:  # type: ignore[no-untyped-def]
    return Home(tmp_path / "home").create()
