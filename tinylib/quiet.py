"""What the libraries say unasked: collect their warnings, hide their bars, shorten their errors."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

_CATCHING = threading.RLock()  # who catches warnings changes what the whole process has


@contextmanager
def library_warnings() -> Iterator[list[str]]:
    """Collect what transformers warns about, instead of letting it go to stderr.

    Messages that transformers gives once per process are given again. A second thread waits for the first.
    """
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    library = logging.getLogger("transformers")
    with _CATCHING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transformers_logging.warning_once.cache_clear()
        # Where CI is set in the environment, transformers hands its messages to the root logger as well.
        before = library.handlers, library.propagate
        library.handlers, library.propagate = [handler], False
        try:
            yield said
        finally:
            library.handlers, library.propagate = before
    said.extend(str(warning.message) for warning in caught)


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Hide transformers' bars unless ``shown``: a folder loads in a second, a download does not."""
    hide = not shown and transformers_logging.is_progress_bar_enabled()
    if hide:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            transformers_logging.enable_progress_bar()


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End a command with what was raised, and the notes on it, as text: exit code 1, after Ctrl-C 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("Stopped.", *getattr(error, "__notes__", []), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
        *before, last = [f"{kind}{error}", *getattr(error, "__notes__", [])]
        sys.exit(". ".join([*(said.rstrip(".") for said in before), last]))
