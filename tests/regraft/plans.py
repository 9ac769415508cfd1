"""Query plans of a store's statements, as the database explains them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event

_OF_FEW_ROWS = ("examples_in_quarantine",)
"""Indexes that have only those that wait for a person."""


@dataclass
class Plans:
    """Steps of query plans, each with whether its statement has a limit."""

    steps: list[tuple[str, bool]] = field(default_factory=list)

    def grown(self) -> list[str]:
        """Return the steps that read a whole table or index.

        They take longer the more rows there are.
        """
        return [step for step, is_limited in self.steps if _reads_all(step) and not (is_limited and "INDEX" in step)]

    def sorted(self) -> list[str]:
        """Return the steps that sort."""
        return [step for step, _ in self.steps if "TEMP B-TREE" in step or step.startswith("Sort")]


@contextmanager
def plans_told() -> Iterator[Plans]:
    """Collect the plan of every statement that this process runs within the block.

    PostgreSQL is told to read a whole table, or to sort, only where it must: of the few rows of a test it always would.
    """
    plans = Plans()

    def explain(
        connection: Connection,
        cursor: Any,  # noqa: ANN401 - the driver's
        statement: str,
        parameters: Any,  # noqa: ANN401 - likewise
        _context: object,
        many: bool,
    ) -> None:
        if not statement.startswith(("SELECT", "DELETE", "UPDATE")) or "FROM" not in statement:
            return
        given = parameters[0] if many else parameters
        if connection.dialect.name == "sqlite":
            told = [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", given).fetchall()]
        else:
            for kind in ("seqscan", "bitmapscan", "sort") if "LIMIT" in statement else ("seqscan",):
                cursor.execute(f"SET LOCAL enable_{kind} = off")
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", given)
            told = _steps(cursor.fetchone()[0][0]["Plan"])
        plans.steps += [(step, "LIMIT" in statement) for step in told]

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def _reads_all(step: str) -> bool:
    return step.startswith(("SCAN ", "Seq Scan")) and not step.endswith(("CONSTANT ROW", *_OF_FEW_ROWS))


def _steps(node: dict[str, Any]) -> list[str]:
    """Return the steps of PostgreSQL's plan.

    An index that is read without a condition is one that is read whole.
    """
    kind, table, index = node["Node Type"], node.get("Relation Name", ""), node.get("Index Name")
    whole = index and "Index Cond" not in node
    step = f"SCAN {table} USING INDEX {index}" if whole else f"{kind} {table} {index or ''}"
    return [step, *(each for below in node.get("Plans", []) for each in _steps(below))]
