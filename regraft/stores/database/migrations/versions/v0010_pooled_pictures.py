"""Pictures without labels, kept until they have one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "pooled_pictures",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("size_bytes", _BIG, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("added_at", sa.String(32), nullable=False),
        sa.Index("pooled_pictures_of_a_model", "model", "sha256", unique=True),
        sa.Index("pooled_pictures_in_turn", "model", "id"),
        sa.Index("pooled_pictures_by_bytes", "model", "size_bytes"),
    )
