"""Connections to PostgreSQL with limits of time, by psycopg.

The database itself ends statements that take too long, or wait too long for a lock. One that is stopped, or cut off
without a word, ends nothing: so each answer has its time here too.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import OperationalError
from psycopg.rows import TupleRow

T = TypeVar("T")

_LIMIT = "SELECT set_config(%s, %s, false) WHERE current_setting(%s) = '0'"
"""Limits that are set already, as by the URL, stay."""


class LimitedConnection(psycopg.Connection[TupleRow]):
    """A connection that is closed after ``answer_s`` seconds without an answer."""

    answer_s = math.inf

    def limit(self, *, statement_s: float, lock_s: float, answer_s: float) -> None:
        """Set the limits of `regraft.stores.database.engine.Patience`."""
        self.answer_s = answer_s
        idle = "idle_in_transaction_session_timeout"  # of a process that was stopped inside a write, here or elsewhere
        for name, seconds in (("statement_timeout", statement_s), ("lock_timeout", lock_s), (idle, statement_s)):
            self.execute(_LIMIT, (name, f"{1000 * seconds:.0f}", name))
        self.commit()

    @contextmanager
    def unlimited(self, lock_s: float) -> Iterator[None]:
        """Lift the limits of the present transaction, but for locks."""
        answer_s, self.answer_s = self.answer_s, math.inf
        self.execute("SET LOCAL statement_timeout = 0")
        self.execute(f"SET LOCAL lock_timeout = {1000 * lock_s:.0f}")
        try:
            yield
        finally:
            self.answer_s = answer_s

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for an answer.

        Raises:
            OperationalError: it does not come in time.
        """
        began_s, most_s = time.monotonic(), self.answer_s if timeout is None else timeout
        try:
            return super().wait(gen, interval, most_s)
        except OperationalError as error:
            if time.monotonic() - began_s < most_s:
                raise
            self.pgconn.finish()
            raise OperationalError(f"PostgreSQL has not answered for {most_s:g} s") from error
