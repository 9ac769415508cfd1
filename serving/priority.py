"""Who gets a CPU when several threads of the server want it; on Linux alone, where each thread has a say of its own.

A thread that wakes up mostly gets the CPU at once. Where lanes keep all CPUs busy, each message that arrives would thus
interrupt a run of the network, and find nothing of what it needs in the processor's caches, nor leave there what the
run needs. As SCHED_BATCH (sched(7)) the threads that receive and answer get the same share of the CPU, but take it in
one piece, for all that has come meanwhile. Where a CPU is free they wake up as soon as ever.
"""

import os
from contextlib import suppress


def work_in_bulk() -> None:
    """Let the calling thread, and those that it starts from now on, not interrupt others when they wake up."""
    _change_policy("SCHED_OTHER", "SCHED_BATCH")


def run_undisturbed() -> None:
    """Let the calling thread wake up at once again, as the lanes shall: they wait for nothing but work."""
    _change_policy("SCHED_BATCH", "SCHED_OTHER")


def _change_policy(before: str, after: str) -> None:
    """Change it where it is what it is expected to be: an operator may have chosen another."""
    with suppress(AttributeError, OSError):  # another system, or a sandbox that forbids it
        if os.sched_getscheduler(0) == getattr(os, before):
            os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))
