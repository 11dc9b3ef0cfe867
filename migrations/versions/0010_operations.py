"""What operators watch: counters, heartbeats, and since when a job is queued; the order of the queue."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "queue", "slot", name=op.f("pk_counters")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )
    op.add_column("projects", sa.Column("served_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_check_constraint(op.f("ck_jobs_priority"), "jobs", "priority BETWEEN -10 AND 10")
    op.add_column("jobs", sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE jobs SET queued_at = created_at WHERE status = 'queued'")
    op.create_check_constraint(op.f("ck_jobs_queued_since"), "jobs", "status != 'queued' OR queued_at IS NOT NULL")
    op.create_index("ix_jobs_queued", "jobs", ["queued_at"], postgresql_where=sa.text("status = 'queued'"))
    op.create_index("ix_jobs_succeeded", "jobs", ["id"], postgresql_where=sa.text("status = 'succeeded'"))


def downgrade() -> None:
    op.drop_index("ix_jobs_succeeded", table_name="jobs")
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.drop_constraint(op.f("ck_jobs_queued_since"), "jobs")
    op.drop_column("jobs", "queued_at")
    op.drop_constraint(op.f("ck_jobs_priority"), "jobs")
    op.drop_column("jobs", "priority")
    op.drop_column("projects", "served_at")
    op.drop_table("heartbeats")
    op.drop_table("counters")
