"""What an uploader decided about doubtful rows, and how far the reading of a file is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("policy", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("files", sa.Column("progress", postgresql.JSONB(none_as_null=True), nullable=True))
    op.add_column("uploads", sa.Column("policy", postgresql.JSONB(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "policy")
    op.drop_column("files", "progress")
    op.drop_column("files", "policy")
