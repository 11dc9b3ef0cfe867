"""Jobs are found by their metadata, and models by their project, without reading every job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():  # jobs are written meanwhile
        for name in ("ix_jobs_metadata", "ix_jobs_models"):  # an earlier try may have left one half made
            op.drop_index(name, table_name="jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_metadata",
            "jobs",
            ["job_metadata"],
            postgresql_using="gin",
            postgresql_ops={"job_metadata": "jsonb_path_ops"},
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_jobs_models",
            "jobs",
            ["project_id", "id"],
            postgresql_where=sa.text("fine_tuned_model IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_jobs_models", table_name="jobs")
    op.drop_index("ix_jobs_metadata", table_name="jobs")
