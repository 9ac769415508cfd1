import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.priority import run_undisturbed, work_in_bulk

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SCHED_BATCH"), reason="only Linux gives threads priorities of their own"
)


def policy() -> int:
    return os.sched_getscheduler(0)


def test_threads_of_one_that_works_in_bulk_do_so_too_but_for_those_that_run_undisturbed() -> None:
    def start_two() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as same, ThreadPoolExecutor(1, initializer=run_undisturbed) as lane:
            return same.submit(policy).result(), lane.submit(policy).result()

    with ThreadPoolExecutor(1, initializer=work_in_bulk) as loop:
        assert loop.submit(policy).result() == os.SCHED_BATCH
        assert loop.submit(start_two).result() == (os.SCHED_BATCH, os.SCHED_OTHER)

    assert policy() == os.SCHED_OTHER


def test_another_policy_was_chosen_by_an_operator_and_stays() -> None:
    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    with ThreadPoolExecutor(1, initializer=idle) as thread:
        for change in (work_in_bulk, run_undisturbed):
            thread.submit(change).result()
            assert thread.submit(policy).result() == os.SCHED_IDLE
