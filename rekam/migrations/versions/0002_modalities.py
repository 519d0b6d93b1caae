"""Samples of any modality where there were fingers only."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sample",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("modality", words, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("template", sa.LargeBinary(), nullable=False),
        sa.Column("image_format", words, nullable=True),
        sa.CheckConstraint(
            "(modality = 'fingerprint' AND position BETWEEN 0 AND 10) "
            "OR (modality = 'iris' AND position BETWEEN 0 AND 2) "
            "OR (modality = 'face' AND position = 0)",
            name=op.f("ck_sample_position"),
        ),
        sa.CheckConstraint("quality BETWEEN 0 AND 100", name=op.f("ck_sample_quality")),
        sa.ForeignKeyConstraint(
            ["encounter_seq"], ["encounter.seq"], name=op.f("fk_sample_encounter"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "ordinal", name=op.f("pk_sample")),
    )
    op.create_index(op.f("ix_sample_modality"), "sample", ["modality"], unique=False)
    op.create_table(
        "sample_image",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["encounter_seq", "ordinal"],
            ["sample.encounter_seq", "sample.ordinal"],
            name=op.f("fk_sample_image_sample"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "ordinal", name=op.f("pk_sample_image")),
    )
    op.create_table(
        "missing_sample",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("modality", words, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", words, nullable=False),
        sa.CheckConstraint(
            "(modality = 'fingerprint' AND position BETWEEN 1 AND 10) "
            "OR (modality = 'iris' AND position BETWEEN 1 AND 2) "
            "OR (modality = 'face' AND position = 0)",
            name=op.f("ck_missing_sample_position"),
        ),
        sa.ForeignKeyConstraint(
            ["encounter_seq"], ["encounter.seq"], name=op.f("fk_missing_sample_encounter"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "modality", "position", name=op.f("pk_missing_sample")),
    )
    # In the order they were written, so that the new tables grow at their end.
    op.execute(
        "INSERT INTO sample (encounter_seq, ordinal, modality, position, quality, template, image_format) "
        "SELECT encounter_seq, ordinal, 'fingerprint', position, quality, template, image_format "
        "FROM finger ORDER BY encounter_seq, ordinal"
    )
    op.execute(
        "INSERT INTO sample_image (encounter_seq, ordinal, image) "
        "SELECT encounter_seq, ordinal, image FROM finger_image ORDER BY encounter_seq, ordinal"
    )
    op.execute(
        "INSERT INTO missing_sample (encounter_seq, modality, position, reason) "
        "SELECT encounter_seq, 'fingerprint', position, reason FROM missing_finger "
        "ORDER BY encounter_seq, position"
    )
    # Dropped pages are overwritten (secure_delete): no second copy of a template stays behind.
    op.drop_table("finger_image")
    op.drop_table("missing_finger")
    op.drop_table("finger")
