"""Datasets, and jobs that pin a revision of one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_metadata", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("pairs_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_datasets_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_project_id_id"), "datasets", ["project_id", "id"], unique=False)
    op.create_table(
        "dataset_revisions",
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("pairs_count", sa.BigInteger(), nullable=False),
        sa.Column("pairs_sha256", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_revisions_dataset_id")),
        sa.PrimaryKeyConstraint("dataset_id", "number", name=op.f("pk_dataset_revisions")),
    )
    op.create_table(
        "dataset_pairs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("chosen_sha256", sa.Text(), nullable=False),
        sa.Column("rejected_sha256", sa.Text(), nullable=True),
        sa.Column("split", sa.Text(), nullable=True),
        sa.Column("weight", sa.Float(), nullable=True),
        sa.Column("annotator", sa.Text(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("file_id", sa.Text(), nullable=True),
        sa.Column("file_row", sa.BigInteger(), nullable=True),
        sa.Column("added_in", sa.BigInteger(), nullable=False),
        sa.Column("removed_in", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("split IN ('train', 'validation')", name=op.f("ck_dataset_pairs_split")),
        sa.CheckConstraint("removed_in > added_in", name=op.f("ck_dataset_pairs_removed_later")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_pairs_dataset_id")),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_dataset_pairs_file_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_pairs")),
        sa.UniqueConstraint("dataset_id", "number", name=op.f("uq_dataset_pairs_dataset_id_number")),
    )
    op.create_table(
        "image_facts",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_image_facts")),
    )
    op.alter_column("jobs", "training_file_id", nullable=True)
    for side in ("training", "validation"):
        op.add_column("jobs", sa.Column(f"{side}_dataset_id", sa.Text(), nullable=True))
        op.add_column("jobs", sa.Column(f"{side}_revision", sa.BigInteger(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_jobs_{side}_dataset_id_{side}_revision"),
            "jobs",
            "dataset_revisions",
            [f"{side}_dataset_id", f"{side}_revision"],
            ["dataset_id", "number"],
        )
        op.create_check_constraint(
            op.f(f"ck_jobs_{side}_pinned"),
            "jobs",
            f"({side}_dataset_id IS NULL) = ({side}_revision IS NULL)",
        )
    op.create_check_constraint(
        op.f("ck_jobs_training_source"), "jobs", "num_nonnulls(training_file_id, training_dataset_id) = 1"
    )
    op.create_check_constraint(
        op.f("ck_jobs_validation_source"), "jobs", "num_nonnulls(validation_file_id, validation_dataset_id) <= 1"
    )


def downgrade() -> None:
    """Only while no job was made of a dataset: those would be without their data."""
    op.drop_constraint(op.f("ck_jobs_validation_source"), "jobs")
    op.drop_constraint(op.f("ck_jobs_training_source"), "jobs")
    for side in ("training", "validation"):
        op.drop_constraint(op.f(f"ck_jobs_{side}_pinned"), "jobs")
        op.drop_constraint(op.f(f"fk_jobs_{side}_dataset_id_{side}_revision"), "jobs")
        op.drop_column("jobs", f"{side}_revision")
        op.drop_column("jobs", f"{side}_dataset_id")
    op.alter_column("jobs", "training_file_id", nullable=False)
    for table in ("image_facts", "dataset_pairs", "dataset_revisions"):
        op.drop_table(table)
    op.drop_index(op.f("ix_datasets_project_id_id"), table_name="datasets")
    op.drop_table("datasets")
