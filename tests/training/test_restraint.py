import sys

import pytest

from regraft.errors import TrainingError
from tests.training.conftest import in_a_child
from training.restraint import within

ASK = """
import os
from training.restraint import step_back
step_back(cpus=1, memory_mb=300)
print(os.nice(0), len(os.sched_getaffinity(0)), open("/proc/self/oom_score_adj").read().strip())
try:
    bytearray(500_000_000)
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the memory limit and the priorities")
def test_who_steps_back_has_its_cpus_its_memory_a_low_priority_and_dies_first() -> None:
    child = in_a_child(["-c", ASK])

    assert child.stdout.split() == ["10", "1", "1000", "refused"], child.stderr


def test_what_takes_too_long_is_interrupted_even_where_every_error_is_handled() -> None:
    def stubborn() -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001, S112 - this is what is tested
                continue

    with pytest.raises(TrainingError, match=r"longer than its limit of 0\.001 minutes"), within(0.001):
        stubborn()


def test_what_ends_in_time_is_left_alone() -> None:
    with within(1):
        done = True

    assert done
