"""Roles of keys and when they were last used, projects' own limits, and the time that jobs have trained."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The keys there are could do everything, and go on doing so; new ones are given a role.
    op.add_column("api_keys", sa.Column("role", sa.Text(), server_default=sa.text("'admin'"), nullable=False))
    op.alter_column("api_keys", "role", server_default=None)
    op.create_check_constraint(op.f("ck_api_keys_role"), "api_keys", "role IN ('read-only', 'member', 'admin')")
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "projects", sa.Column("limits", postgresql.JSONB(none_as_null=True), server_default="{}", nullable=False)
    )
    op.add_column("jobs", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("training_seconds", sa.Double(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    op.drop_column("jobs", "training_seconds")
    op.drop_column("jobs", "claimed_at")
    op.drop_column("projects", "limits")
    op.drop_column("api_keys", "last_used_at")
    op.drop_constraint(op.f("ck_api_keys_role"), "api_keys", type_="check")
    op.drop_column("api_keys", "role")
