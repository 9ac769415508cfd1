"""The kind of a job, and the points of its learning curve."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add both; all jobs that are there retrain a head."""
    op.add_column("retrain_jobs", sa.Column("kind", sa.String(16), nullable=False, server_default="retrain"))
    op.add_column("retrain_jobs", sa.Column("points", sa.JSON))
