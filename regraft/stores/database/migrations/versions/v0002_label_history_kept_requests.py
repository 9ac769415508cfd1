"""Labels have a history, and served pictures may be kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add both tables; the labels that are there begin the history."""
    op.create_table(
        "label_history",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.execute(
        "INSERT INTO label_history (model, sha256, label, source, annotator, request_id, caller, at) "
        "SELECT model, sha256, label, source, '', '', '', added_at FROM examples"
    )
    op.create_index("label_history_of_an_example", "label_history", ["model", "sha256"])
    op.create_index("label_history_of_a_caller", "label_history", ["caller", "at"])
    op.create_table(
        "kept_requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("novelty", sa.Float, nullable=False),
        sa.Column("backbone", sa.String(64), nullable=False),
        sa.Column("image_spec", sa.String(64), nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("kept_requests_by_age", "kept_requests", ["at", "id"])
