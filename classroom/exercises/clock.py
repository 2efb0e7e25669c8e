"""Stop an answer that does not end."""

import signal
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")
AGAIN = 0.05  # seconds


class TooLong(BaseException):
    """An answer has run out of time. It is no ``Exception``, which the answer itself might catch."""


def call_within(seconds: float, function: Callable[[], Result]) -> Result:
    """Call a Python function, and raise `TooLong` in it after ``seconds``.

    A signal does that, and Python handles signals in the main thread only. In another thread, and on Windows,
    which has no such signal, the function runs without a limit: Jupyter's *Interrupt* ends it.

    Raises:
        TooLong: The time was up. It is raised every `AGAIN` seconds until the function has ended, since
            ``except:`` catches it.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return function()

    def stop(_: int, interrupted: FrameType | None) -> None:
        for frame, _ in traceback.walk_stack(interrupted):
            if frame.f_code is function.__code__:
                raise TooLong
            if frame.f_code is call_within.__code__:  # the function has just ended
                return
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                # torch takes seconds to import, and stopped halfway cannot be imported again.
                signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
                return

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        return function()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if left:  # somebody else's timer; one that would have been up by now is up at once
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-6), interval)
