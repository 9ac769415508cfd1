"""Indexes for growing tables, and 64-bit sizes of kept requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ASIDE = sa.text("quarantine <> ''")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")

_COUNT = """
UPDATE kept_requests SET number = counted.number, bytes_before = counted.bytes - size_bytes
FROM (
  SELECT id, row_number() OVER (ORDER BY at, id) AS number,
    sum(size_bytes) OVER (ORDER BY at, id ROWS UNBOUNDED PRECEDING) AS bytes
  FROM kept_requests
) AS counted
WHERE counted.id = kept_requests.id
"""


def upgrade() -> None:
    """Add columns and indexes, and number kept requests by time."""
    op.create_index(
        "examples_in_quarantine", "examples", ["model", "sha256"], sqlite_where=_ASIDE, postgresql_where=_ASIDE
    )
    op.create_index("label_history_by_time", "label_history", ["model", "at"])
    op.create_index("label_history_in_turn", "label_history", ["model", "id"])
    op.create_index("retrain_jobs_by_age", "retrain_jobs", ["created_at", "id"])
    op.create_index("retrain_jobs_of_a_model", "retrain_jobs", ["model", "created_at", "id"])
    op.create_index("retrain_jobs_in_a_state", "retrain_jobs", ["state", "created_at", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("kept_requests", "size_bytes", type_=_BIG)
    for name in ("number", "bytes_before"):
        op.add_column("kept_requests", sa.Column(name, _BIG, nullable=False, server_default="0"))
    op.execute(_COUNT)
    op.create_index("kept_requests_in_turn", "kept_requests", ["number"], unique=True)
    op.create_index("kept_requests_by_bytes", "kept_requests", ["bytes_before", "number"])
    op.create_index("kept_requests_of_a_model", "kept_requests", ["model", "backbone", "image_spec", "number"])
    op.drop_index("kept_requests_by_age", "kept_requests")
