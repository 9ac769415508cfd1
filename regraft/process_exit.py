"""Ends a process that may have stuck threads."""

import logging
import os
import sys
import threading
import time
from typing import Final, NoReturn

_PATIENCE_S: Final = 1.0
"""Time for idle threads to end."""


def end_process(code: int) -> NoReturn:
    """End the process, even where a thread is stuck.

    It may be in a disk, or in a picture that takes long. Python itself would wait for every thread that is no daemon.
    """
    give_up_s = time.monotonic() + _PATIENCE_S
    for thread in _others():
        thread.join(max(0.0, give_up_s - time.monotonic()))
    if _others():
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _others() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread is not threading.current_thread() and not thread.daemon
    ]
