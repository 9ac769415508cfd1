"""The columns of quarantine, and of who vouched for a label."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add both columns."""
    for name in ("quarantine", "vouched_by"):
        op.add_column("examples", sa.Column(name, sa.Text, nullable=False, server_default=""))
