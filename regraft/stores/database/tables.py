"""The tables behind the stores.

A change to a table is a step in `regraft.stores.database.migrations.versions` too; see
`regraft.stores.database.schema`.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

_ASIDE = text("quarantine <> ''")
_BIG = BigInteger().with_variant(Integer, "sqlite")  # whose integers have 64 bits anyway

examples = Table(
    "examples",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("label", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("added_at", String(32), nullable=False),
    Column("quarantine", Text, nullable=False, server_default=""),
    Column("vouched_by", Text, nullable=False, server_default=""),
    Index("examples_in_quarantine", "model", "sha256", sqlite_where=_ASIDE, postgresql_where=_ASIDE),
)

label_history = Table(
    "label_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("label", Text),  # none: the example was removed
    Column("source", Text, nullable=False),
    Column("annotator", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index("label_history_of_an_example", "model", "sha256"),
    Index("label_history_of_a_caller", "caller", "at"),
    Index("label_history_by_time", "model", "at"),
    Index("label_history_in_turn", "model", "id"),
)
"""Every label that an example was ever given; only ever appended to. `examples` holds what is in force."""

splits = Table(
    "splits",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("is_holdout", Boolean),  # none: no retrain has used it yet
)
"""Which group a picture belongs to, and on which side of the split it is; both outlive the example."""

kept_requests = Table(
    "kept_requests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size_bytes", _BIG, nullable=False),
    Column("label", Text, nullable=False),
    Column("probability", Float, nullable=False),
    Column("novelty", Float, nullable=False),
    Column("backbone", String(64), nullable=False),
    Column("image_spec", String(64), nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # float32, little-endian
    Column("at", String(32), nullable=False),
    # Both grow from row to row, so that what lies beyond a bound is found at its end, without adding up the others.
    Column("number", _BIG, nullable=False, server_default="0"),
    Column("bytes_before", _BIG, nullable=False, server_default="0"),
    Index("kept_requests_in_turn", "number", unique=True),
    Index("kept_requests_by_bytes", "bytes_before", "number"),
    Index("kept_requests_of_a_model", "model", "backbone", "image_spec", "number"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("backbone", String(64), primary_key=True),
    Column("image_spec", String(64), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
)

_ACTIVE = text("state IN ('PENDING', 'RUNNING')")

retrain_jobs = Table(
    "retrain_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("phase", String(32), nullable=False, default=""),
    Column("fraction", Float, nullable=False, default=0.0),
    Column("message", Text, nullable=False, default=""),
    Column("settings", JSON, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("champion", Integer),
    Column("version", Integer),
    Column("verdict", JSON),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("created_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("idempotency_key", String(128)),
    Column("interrupted", Text, nullable=False, server_default=""),
    Index("one_job_a_key", "model", "idempotency_key", unique=True),
    # The database itself sees to it that a model has one job at a time, whoever asks.
    Index("one_active_job_a_model", "model", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("retrain_jobs_by_age", "created_at", "id"),
    Index("retrain_jobs_of_a_model", "model", "created_at", "id"),
    Index("retrain_jobs_in_a_state", "state", "created_at", "id"),
)
