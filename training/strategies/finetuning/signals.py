"""Ctrl-C and SIGTERM as a wish to stop between two steps, so that nothing is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingStopped(KeyboardInterrupt):
    """A run ended early because somebody wished it; the text says how it can go on."""


@contextmanager
def wish_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a callable that tells whether SIGINT or SIGTERM came; a second SIGINT interrupts at once, as usual."""
    wished = threading.Event()

    def note(_signal: int, _frame: FrameType | None) -> None:
        wished.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
