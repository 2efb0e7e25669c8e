"""Warnings of the libraries are caught, and everything is given back as it was."""

import logging
import threading
import warnings

import pytest

from tinylib.padding import pad
from tinylib.quiet import library_warnings


def test_library_warnings_are_collected_again_and_handlers_restored(
    tinyllama: tuple,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # as in CI
    model, _ = tinyllama
    batch = pad([[5, 6], [7]], pad_id=2, side="right")
    handlers = list(logging.getLogger("transformers").handlers)
    for _ in range(2):  # transformers gives this one once per process; here every time
        with library_warnings() as said:
            model.generate(**batch, max_new_tokens=1, do_sample=False, pad_token_id=2)
        assert any("right-padding was detected" in message for message in said)
    assert logging.getLogger("transformers").handlers == handlers
    assert logging.getLogger("transformers").propagate
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_two_threads_that_catch_warnings_leave_everything_as_it_was() -> None:
    handlers, filters = list(logging.getLogger("transformers").handlers), list(warnings.filters)
    entered, left = threading.Event(), threading.Event()

    def catch() -> None:
        with library_warnings():
            entered.set()
            left.wait(0.2)  # the other one would end first, if it could begin

    first = threading.Thread(target=catch)
    first.start()
    entered.wait()
    with library_warnings():
        left.set()
        first.join(0.2)
    first.join()
    assert logging.getLogger("transformers").handlers == handlers
    assert warnings.filters == filters
