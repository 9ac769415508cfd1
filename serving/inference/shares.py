"""Fair shares of a limited amount: permits for pictures, bytes of memory.

A stream may wait, and gets the next that is free in turn, first of the caller who has least. A single request does not
wait in a full server, but is refused at once; only where others, or streams, have what is its caller's share, it waits
for what they give back next.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(eq=False)
class Grant:
    """An amount granted to a caller; a context manager that gives it back."""

    amount: int
    caller: str
    patient: bool
    shares: "Shares"
    _is_open: bool = True

    def give_back(self) -> None:
        """Give it back, once."""
        if self._is_open:
            self._is_open = False
            self.shares.take_back(self)

    def __enter__(self) -> Self:
        """Hold it for the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.give_back()


@dataclass(eq=False)
class _Waiting:
    amount: int
    patient: bool
    turn: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Shares:
    """An amount shared by callers; use from one event loop.

    ``peak`` is the most that was taken since somebody set it.
    """

    def __init__(self, most: int, patient_part: int = 1) -> None:
        """Share out ``most`` among callers.

        Of ``patient_part`` parts of it those who may wait have one, so that others find room.
        """
        self._most_patient = max(1, most // patient_part)
        self.most = most
        self.taken = 0
        self.peak = 0
        self._by_caller: Counter[str] = Counter()
        self._single: Counter[str] = Counter()  # of it, what single requests have, and what they wait for
        self._patient = 0
        self._waiting: dict[str, list[_Waiting]] = {}

    def is_refused(self, caller: str, amount: int = 1) -> bool:
        """Tell whether a single request would be refused."""
        return not self._fits(amount, patient=False) and self._single[caller] + amount > self._share(caller)

    async def take(self, amount: int, caller: str, *, patient: bool) -> Grant | None:
        """Take an amount, now or in turn; None refuses a single request.

        Args:
            amount: at most `most`.
            caller: whose share it is of.
            patient: wait, however long that takes.
        """
        if not patient:
            if self.is_refused(caller, amount):
                return None
            self._single[caller] += amount
        if not self._fits(amount, patient=patient) or (patient and self._waiting):
            await self._wait(amount, caller, patient=patient)
        else:
            self._count(amount, caller, patient=patient)
        return Grant(amount, caller, patient, self)

    def take_back(self, grant: Grant) -> None:
        """Grant the next what was given back; see `Grant.give_back`."""
        self._uncount(grant.amount, grant.caller, patient=grant.patient)
        self._serve()

    def _share(self, caller: str) -> int:
        callers = self._by_caller.keys() | self._waiting.keys() | {caller}
        return self.most // len(callers)

    def _fits(self, amount: int, *, patient: bool) -> bool:
        if self.taken + amount > self.most:
            return False
        return not (patient and self._patient) or self._patient + amount <= self._most_patient

    async def _wait(self, amount: int, caller: str, *, patient: bool) -> None:
        waiting = _Waiting(amount, patient)
        queue = self._waiting.setdefault(caller, [])
        before = len(queue) if patient else sum(not each.patient for each in queue)  # single requests go first
        queue.insert(before, waiting)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if not waiting.turn.cancelled():  # it came at the same moment
                self._uncount(amount, caller, patient=patient)
            else:
                if not patient:
                    _take_off(self._single, caller, amount)
                self._forget(waiting, caller)
            self._serve()
            raise

    def _forget(self, waiting: _Waiting, caller: str) -> None:
        queue = self._waiting.get(caller, [])
        if waiting in queue:
            queue.remove(waiting)
        if not queue:
            self._waiting.pop(caller, None)

    def _serve(self) -> None:
        """Give what is free to those who wait, callers with least first."""
        while (caller := self._next_caller()) is not None:
            waiting = self._waiting[caller][0]
            self._forget(waiting, caller)
            if not waiting.turn.done():  # given up
                self._count(waiting.amount, caller, patient=waiting.patient)
                waiting.turn.set_result(None)

    def _next_caller(self) -> str | None:
        is_blocked = False  # a large one whose turn it is shall not wait behind small ones for ever
        for caller in sorted(self._waiting, key=self._by_caller.__getitem__):
            first = self._waiting[caller][0]
            if not (first.patient and is_blocked) and self._fits(first.amount, patient=first.patient):
                return caller
            is_blocked = is_blocked or first.patient
        return None

    def _count(self, amount: int, caller: str, *, patient: bool) -> None:
        self.taken += amount
        self.peak = max(self.peak, self.taken)
        self._patient += amount if patient else 0
        self._by_caller[caller] += amount

    def _uncount(self, amount: int, caller: str, *, patient: bool) -> None:
        self.taken -= amount
        self._patient -= amount if patient else 0
        _take_off(self._by_caller, caller, amount)
        if not patient:
            _take_off(self._single, caller, amount)


def _take_off(counts: Counter[str], caller: str, amount: int) -> None:
    counts[caller] -= amount
    if not counts[caller]:
        del counts[caller]
