"""Predictions of examples, changes of labels, and who set each label."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_ANNOTATORS = """
UPDATE examples SET annotator = COALESCE((
  SELECT annotator FROM label_history AS entry
  WHERE entry.model = examples.model AND entry.sha256 = examples.sha256 AND entry.label IS NOT NULL
    AND entry.source <> 'released from quarantine'
  ORDER BY entry.id DESC LIMIT 1
), '')
"""


def upgrade() -> None:
    """Add tables and columns, and find annotators in the history."""
    op.add_column("examples", sa.Column("annotator", sa.Text, nullable=False, server_default=""))
    op.execute(_ANNOTATORS)
    op.create_index("examples_by_time", "examples", ["model", "added_at", "sha256"])
    op.create_index("examples_by_label", "examples", ["model", "label", "sha256"])
    op.add_column("label_history", sa.Column("change", sa.Integer))
    op.create_table(
        "label_changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("new_label", sa.Text),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("last_entry", sa.Integer, nullable=False),
    )
    op.create_index("label_changes_in_turn", "label_changes", ["model", "at"], unique=True)
    op.create_table(
        "predictions",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("head", sa.String(16), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("of_label", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("label_probability", sa.Float),
        sa.Column("novelty", sa.Float, nullable=False),
        sa.Column("doubt", sa.Float, nullable=False),
        sa.Column("is_right", sa.Boolean, nullable=False),
        sa.Column("is_suspected", sa.Boolean, nullable=False),
        sa.Column("is_unseen", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    for name in ("doubt", "probability", "novelty"):
        op.create_index(f"predictions_by_{name}", "predictions", ["model", "head", name, "sha256"])
