"""Pool of CPUs that the lanes of all backbones share.

The execution plan of each backbone is for all CPUs, so several would use more than there are.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class CpuPool:
    """CPUs for threads, in the order of asking; safe in any thread."""

    def __init__(self, count: int) -> None:
        """Share ``count`` CPUs."""
        self.count = self._free = count
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """The number of threads that wait for CPUs."""
        return len(self._waiting)

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Hold so many CPUs, or all if there are fewer, for the block."""
        count = min(count, self.count)
        self._take(count)
        try:
            yield
        finally:
            self._give_back(count)

    def _take(self, count: int) -> None:
        with self._lock:
            if count <= self._free and not self._waiting:
                self._free -= count
                return
            turn = threading.Event()
            self._waiting.append((count, turn))
        turn.wait()

    def _give_back(self, count: int) -> None:
        """Hand free CPUs on in turn, also to those who need many."""
        with self._lock:
            self._free += count
            while self._waiting and self._waiting[0][0] <= self._free:
                amount, turn = self._waiting.popleft()
                self._free -= amount
                turn.set()
