"""Jobs tell how much device memory a worker needs to take them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("memory_gib", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "memory_gib")
