"""Retrain jobs know the key that they were asked for with."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("retrain_jobs", sa.Column("idempotency_key", sa.String(128)))
    op.create_index("one_job_a_key", "retrain_jobs", ["model", "idempotency_key"], unique=True)
