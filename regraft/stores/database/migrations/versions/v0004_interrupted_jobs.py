"""The column of how a job's first process ended."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("retrain_jobs", sa.Column("interrupted", sa.Text, nullable=False, server_default=""))
