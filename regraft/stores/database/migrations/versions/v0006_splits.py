"""Pictures have a group, and keep their side of the split."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "splits",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("is_holdout", sa.Boolean),
    )
