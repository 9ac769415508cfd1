import threading
from collections.abc import Iterator

import pytest

from regraft.machine import cpu_budget
from regraft.read_ahead import map_ahead
from tests.waiting import PATIENCE_S


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_ahead(lambda number: number * number, range(1000))) == [number * number for number in range(1000)]


def test_all_cpus_work_at_once() -> None:
    together = threading.Barrier(cpu_budget())

    def meet(number: int) -> int:
        together.wait(PATIENCE_S)
        return number

    assert list(map_ahead(meet, range(4 * cpu_budget()))) == list(range(4 * cpu_budget()))


def test_no_more_items_are_taken_than_may_be_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for done, _ in enumerate(map_ahead(str, items(), ahead=5), start=1):
        assert taken <= done + 5


def test_an_error_comes_where_its_result_would() -> None:
    results = map_ahead(lambda number: 1 // (2 - number), range(4))

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
