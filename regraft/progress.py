"""Progress of long work, by stages and steps.

The command line draws a bar from it, a retrain job writes it to its row.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""A listener: stage, steps done, steps in all; called from one thread, often, with 0 done as a stage begins."""

Clock: TypeAlias = Callable[[], float]
"""A clock in seconds."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Report to nobody."""


@dataclass
class Round:
    """One pass through a stage; a run may embed, say, several times.

    Attributes:
        began_s: by the clock.
        updated_s: of the last step.
    """

    stage: str
    began_s: float
    updated_s: float
    done: int
    total: int

    @property
    def is_over(self) -> bool:
        """True once all steps are done."""
        return 0 < self.total <= self.done


class Rounds:
    """The rounds of stages, told apart by their counts going back."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Read the time from ``clock``."""
        self._clock = clock
        self._latest: dict[str, Round] = {}

    def update(self, stage: str, done: int, total: int) -> tuple[Round, bool]:
        """Return the round of a step, and whether this step ends it."""
        now_s = self._clock()
        last = self._latest.get(stage)
        if last and last.is_over and (done, total) == (last.done, last.total):
            return last, False
        if last is None or last.is_over or done < last.done or not last.total:
            last = self._latest[stage] = Round(stage, now_s, now_s, done, total)
        last.updated_s, last.done, last.total = now_s, done, total
        return last, last.is_over

    def unfinished(self) -> list[Round]:
        """Return the rounds that are not over."""
        return [each for each in self._latest.values() if each.total and not each.is_over]


@contextmanager
def progress_lines(say: Callable[[str], None], clock: Clock = time.monotonic) -> Iterator[Progress]:
    """Yield a progress that writes a line as each stage ends."""
    rounds = Rounds(clock)

    def tell(stage: str, done: int, total: int) -> None:
        current, is_over = rounds.update(stage, done, total)
        if is_over:
            say(f"{stage}: {total} in {current.updated_s - current.began_s:.1f} s")

    yield tell
    for left in rounds.unfinished():
        say(f"{left.stage}: {left.done} of {left.total} in {left.updated_s - left.began_s:.1f} s")
