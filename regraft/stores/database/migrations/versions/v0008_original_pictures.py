"""The column of pictures that a training run kept."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add it; all that is there was sent."""
    op.add_column("examples", sa.Column("is_original", sa.Boolean, nullable=False, server_default=sa.false()))
