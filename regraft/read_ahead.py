"""Parallel work, a few items ahead of its consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from regraft.machine import cpu_budget

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], ahead: int | None = None) -> Iterator[R]:
    """Yield ``function(item)`` in order, computed on all CPUs.

    Unlike ``Executor.map`` it holds only a few items and results at a time, however many there are.

    Args:
        function: called in several threads at once.
        items: taken one by one, in the caller's thread.
        ahead: how many are begun, or done, before their turn; four for each CPU if None.
    """
    cpus = cpu_budget()
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(cpus) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > (ahead or 4 * cpus):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
