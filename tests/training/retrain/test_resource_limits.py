import os
import sys
from itertools import count

import pytest

from regraft.errors import TrainingError
from regraft.stores.recovery import OUT_OF_MEMORY
from tests.training.conftest import in_a_child
from training.retrain.resource_limits import limited

ASK = """
import os
from training.retrain.resource_limits import lower_priority
lower_priority(cpus=1)
print(os.nice(0), len(os.sched_getaffinity(0)), open("/proc/self/oom_score_adj").read().strip())
"""

GREEDY = """
import signal, sys, threading
from regraft.errors import TrainingError
from training.retrain.resource_limits import limited

def take():
    return b"x" * (200 * 2**20)

def take_and_wait():
    taken = take()
    threading.Event().wait()

def take_in_native_code():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # the main thread hears of nothing, as in such code
    take_and_wait()

try:
    with limited(10, int(sys.argv[2]), lambda reason: print("last words:", reason)):
        globals()[sys.argv[1]]()
except TrainingError as error:
    print("stopped:", error)
else:
    print("done", threading.active_count(), signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has the memory's size and the priorities")


@on_linux
def test_who_steps_back_has_its_cpus_a_low_priority_and_dies_first() -> None:
    child = in_a_child(["-c", ASK])

    assert child.stdout.split() == [str(min(os.nice(0) + 10, 19)), "1", "1000"], child.stderr


@on_linux
def test_what_has_more_memory_than_its_limit_is_interrupted() -> None:
    child = in_a_child(["-c", GREEDY, "take_and_wait", "150"])

    assert child.stdout.startswith("stopped: it needs more memory than its limit of 150 MB, and had "), child.stderr
    assert child.returncode == 0, "and goes on"


@on_linux
def test_what_has_more_than_its_limit_from_the_start_is_refused() -> None:
    child = in_a_child(["-c", GREEDY, "take", "1"])

    assert child.stdout.startswith("stopped: it needs more memory than its limit of 1 MB"), child.stderr


@on_linux
@pytest.mark.parametrize("limit_mb", ["1000", "0"])
def test_what_stays_below_its_limit_is_left_alone_and_nothing_watches_it_any_more(limit_mb: str) -> None:
    child = in_a_child(["-c", GREEDY, "take", limit_mb])

    assert child.stdout.split() == ["done", "1", "True"], child.stderr


@on_linux
def test_a_process_that_has_too_much_memory_and_heeds_nothing_says_so_and_ends() -> None:
    child = in_a_child(["-u", "-c", GREEDY, "take_in_native_code", "150"])

    assert child.returncode == OUT_OF_MEMORY, child.stderr
    assert child.stdout.startswith("last words: it needs more memory than its limit of 150 MB")


def test_what_takes_too_long_is_interrupted_even_where_every_error_is_handled() -> None:
    def stubborn() -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001, S112 - this is what is tested
                continue

    with pytest.raises(TrainingError, match=r"longer than its limit of 0\.001 minutes"), limited(0.001):
        stubborn()


def test_what_takes_too_long_and_is_watched_for_memory_too_is_interrupted() -> None:
    with pytest.raises(TrainingError, match=r"longer than its limit of 0\.001 minutes"), limited(0.001, 10**6):
        for _ in count():
            pass


def test_what_ends_in_time_is_left_alone() -> None:
    with limited(1):
        done = True

    assert done
