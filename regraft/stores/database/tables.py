"""The tables behind the stores.

A change to a table is a step in `regraft.stores.database.migrations.versions` too; see
`regraft.stores.database.schema`.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

_ASIDE = sa.text("quarantine <> ''")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # whose integers have 64 bits anyway

examples = sa.Table(
    "examples",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("added_at", sa.String(32), nullable=False),
    sa.Column("quarantine", sa.Text, nullable=False, server_default=""),
    sa.Column("vouched_by", sa.Text, nullable=False, server_default=""),
    sa.Column("is_original", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("annotator", sa.Text, nullable=False, server_default=""),
    sa.Index("examples_by_time", "model", "added_at", "sha256"),
    sa.Index("examples_by_label", "model", "label", "sha256"),
    sa.Index("examples_in_quarantine", "model", "sha256", sqlite_where=_ASIDE, postgresql_where=_ASIDE),
)

label_history = sa.Table(
    "label_history",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("label", sa.Text),  # none: the example was removed
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("annotator", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("change", sa.Integer),  # of `label_changes`, which it is part of; none: it was set by itself
    sa.Index("label_history_of_an_example", "model", "sha256"),
    sa.Index("label_history_of_a_caller", "caller", "at"),
    sa.Index("label_history_by_time", "model", "at"),
    sa.Index("label_history_in_turn", "model", "id"),
)
"""Every label of every example; only appended to. `examples` has those in force."""

label_changes = sa.Table(
    "label_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("new_label", sa.Text),  # none: the label was removed
    sa.Column("annotator", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),  # microseconds; of a model each is later than the one before
    sa.Column("last_entry", sa.Integer, nullable=False),  # of `label_history` before it
    sa.Index("label_changes_in_turn", "model", "at", unique=True),
)
"""Labels that were renamed or removed; only appended to. Versions follow those that are older than their data."""

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("head", sa.String(16), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("of_label", sa.Text, nullable=False),  # of the example when it was made; it holds for no other
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("label_probability", sa.Float),  # none: the head does not know the label
    sa.Column("novelty", sa.Float, nullable=False),
    sa.Column("doubt", sa.Float, nullable=False),  # of the label; -1: the head does not know it
    sa.Column("is_right", sa.Boolean, nullable=False),
    sa.Column("is_suspected", sa.Boolean, nullable=False),
    sa.Column("is_unseen", sa.Boolean, nullable=False),
    sa.Index("predictions_by_doubt", "model", "head", "doubt", "sha256"),
    sa.Index("predictions_by_probability", "model", "head", "probability", "sha256"),
    sa.Index("predictions_by_novelty", "model", "head", "novelty", "sha256"),
    sqlite_with_rowid=False,  # found by hash, in order of the hashes, with one look
)
"""Answers of heads on examples; can be made anew."""

splits = sa.Table(
    "splits",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("group_name", sa.Text, nullable=False),
    sa.Column("is_holdout", sa.Boolean),  # none: no retrain has used it yet
)
"""Groups and sides of pictures; both outlive the example."""

kept_requests = sa.Table(
    "kept_requests",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("size_bytes", _BIG, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("novelty", sa.Float, nullable=False),
    sa.Column("backbone", sa.String(64), nullable=False),
    sa.Column("image_spec", sa.String(64), nullable=False),
    sa.Column("embedding", sa.LargeBinary, nullable=False),  # float32, little-endian
    sa.Column("at", sa.String(32), nullable=False),
    # Both grow from row to row, so that what lies beyond a bound is found at its end, without adding up the others.
    sa.Column("number", _BIG, nullable=False, server_default="0"),
    sa.Column("bytes_before", _BIG, nullable=False, server_default="0"),
    sa.Index("kept_requests_in_turn", "number", unique=True),
    sa.Index("kept_requests_by_bytes", "bytes_before", "number"),
    sa.Index("kept_requests_of_a_model", "model", "backbone", "image_spec", "number"),
)

pooled_pictures = sa.Table(
    "pooled_pictures",
    metadata,
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
"""Pictures without labels; a row goes once its picture has one."""

embeddings = sa.Table(
    "embeddings",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("backbone", sa.String(64), primary_key=True),
    sa.Column("image_spec", sa.String(64), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float32, little-endian
)

_ACTIVE = sa.text("state IN ('PENDING', 'RUNNING')")

retrain_jobs = sa.Table(
    "retrain_jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(32), nullable=False, default=""),
    sa.Column("fraction", sa.Float, nullable=False, default=0.0),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("champion", sa.Integer),
    sa.Column("version", sa.Integer),
    sa.Column("verdict", sa.JSON),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("finished_at", sa.String(32)),
    sa.Column("idempotency_key", sa.String(128)),
    sa.Column("interrupted", sa.Text, nullable=False, server_default=""),
    sa.Column("kind", sa.String(16), nullable=False, server_default="retrain"),
    sa.Column("points", sa.JSON),  # none: nothing was learned by epochs
    sa.Index("one_job_a_key", "model", "idempotency_key", unique=True),
    # The database itself sees to it that a model has one job at a time.
    sa.Index("one_active_job_a_model", "model", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    sa.Index("retrain_jobs_by_age", "created_at", "id"),
    sa.Index("retrain_jobs_of_a_model", "model", "created_at", "id"),
    sa.Index("retrain_jobs_in_a_state", "state", "created_at", "id"),
)
