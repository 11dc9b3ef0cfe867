"""Projects take turns at intake and generation; jobs and generations can be deleted, and generations cancelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Deleting a row is checked against those that name it.
INDEXES = (
    ("ix_dataset_pairs_file_id", "dataset_pairs", ["file_id"], "file_id IS NOT NULL"),
    (
        "ix_jobs_training_revision",
        "jobs",
        ["training_dataset_id", "training_revision"],
        "training_dataset_id IS NOT NULL",
    ),
    (
        "ix_jobs_validation_revision",
        "jobs",
        ["validation_dataset_id", "validation_revision"],
        "validation_dataset_id IS NOT NULL",
    ),
    ("ix_webhook_deliveries_job_id", "webhook_deliveries", ["job_id"], None),
)
OF_CHECKPOINTS = """
    UPDATE checkpoints SET bytes = (SELECT coalesce(sum((file.value ->> 'bytes')::bigint), 0)
        FROM jsonb_each(manifest) AS file) WHERE manifest != '{}'"""
OF_GENERATIONS = """
    UPDATE generations SET bytes = (SELECT coalesce(sum((image.value ->> 'bytes')::bigint), 0)
        FROM jsonb_array_elements(result -> 'images') AS image) WHERE result IS NOT NULL"""


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("projects", sa.Column("intake_served_at", moment))
    op.add_column("projects", sa.Column("generation_served_at", moment))
    op.add_column("files", sa.Column("images_bytes", sa.BigInteger()))
    op.add_column("jobs", sa.Column("deleted_at", moment))
    for table, sizes in (("checkpoints", OF_CHECKPOINTS), ("generations", OF_GENERATIONS)):
        op.add_column(table, sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
        op.execute(sizes)
    op.add_column("generations", sa.Column("deleted_at", moment))
    op.add_column(
        "generations", sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    with op.get_context().autocommit_block():  # the tables are written meanwhile
        for name, table, columns, where in INDEXES:
            # An earlier try may have left one half made.
            op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
            condition = sa.text(where) if where is not None else None
            op.create_index(name, table, columns, postgresql_where=condition, postgresql_concurrently=True)


def downgrade() -> None:
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table_name=table)
    op.drop_column("generations", "cancel_requested")
    op.drop_column("generations", "deleted_at")
    op.drop_column("generations", "bytes")
    op.drop_column("checkpoints", "bytes")
    op.drop_column("jobs", "deleted_at")
    op.drop_column("files", "images_bytes")
    op.drop_column("projects", "generation_served_at")
    op.drop_column("projects", "intake_served_at")
