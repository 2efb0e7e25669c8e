"""An answer that does not end is stopped, and nothing of the clock is left behind."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from classroom.exercises import clock
from classroom.exercises.clock import TooLong, call_within

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such signal")


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Stand for somebody else's use of the signal; what it is told is listed."""
    told: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: told.append(number))
    yield told
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def loops() -> None:
    while True:
        pass


def catches_errors() -> str:
    try:
        loops()
    except Exception:
        return "an answer"


def catches_all() -> None:
    try:
        loops()
    except:  # noqa: E722
        loops()


@pytest.mark.parametrize("endless", [loops, catches_errors, catches_all])
def test_a_loop_is_stopped_and_the_signal_is_given_back(
    endless: Callable[[], None], alarms: list[int]
) -> None:
    signal.setitimer(signal.ITIMER_REAL, 100, 50)
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TooLong):
        call_within(0.1, endless)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left < 99.9
    assert interval == 50
    assert signal.getsignal(signal.SIGALRM) is handler
    assert alarms == []


def test_a_timer_that_was_up_meanwhile_is_up_afterwards(alarms: list[int]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert call_within(10, lambda: time.sleep(0.1) or "an answer") == "an answer"
    time.sleep(0.01)
    assert alarms == [signal.SIGALRM]


def test_nothing_is_raised_when_the_time_is_up_just_after_the_answer(
    alarms: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def up_as_it_is_stopped(which: int, seconds: float, interval: float = 0) -> tuple[float, float]:
        if seconds == 0:
            signal.raise_signal(signal.SIGALRM)
        return really_set(which, seconds, interval)

    really_set = signal.setitimer
    monkeypatch.setattr(clock.signal, "setitimer", up_as_it_is_stopped)
    assert call_within(10, lambda: "an answer") == "an answer"
    monkeypatch.undo()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert alarms == []


def test_an_import_is_not_stopped_halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the time of three answers; the answer that needs it is right."""
    (tmp_path / "takes_long.py").write_text("import time\ntime.sleep(0.3)\nANSWER = 1")
    monkeypatch.syspath_prepend(tmp_path)

    def answer() -> int:
        import takes_long

        return takes_long.ANSWER

    assert call_within(0.1, answer) == 1
    del sys.modules["takes_long"]


def test_where_no_signal_can_be_handled_it_just_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    thread = threading.Thread(
        target=lambda: given.append(call_within(0.01, lambda: time.sleep(0.05) or "late"))
    )
    thread.start()
    thread.join()
    monkeypatch.delattr(signal, "setitimer")
    assert call_within(0.01, lambda: time.sleep(0.05) or "late") == "late"
    assert given == ["late"]
