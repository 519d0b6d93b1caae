"""Subjects, encounters with their fingers, cases, answered requests, the change log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("number", number, nullable=False),
        sa.Column("case_id", words, nullable=False),
        sa.Column("encounter_id", words, nullable=False),
        sa.Column("nik", words, nullable=False),
        sa.Column("decision", words, nullable=False),
        sa.Column("state", words, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("resolution", words, nullable=True),
        sa.Column("operator", words, nullable=True),
        sa.Column("comment", words, nullable=True),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("subject_id", words, nullable=True),
        sa.CheckConstraint(
            "(state = 'resolved') = (resolution IS NOT NULL)", name=op.f("ck_cases_resolved_has_resolution")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_cases")),
        sa.UniqueConstraint("case_id", name=op.f("uq_cases_case_id")),
        sa.UniqueConstraint("encounter_id", name=op.f("uq_cases_encounter_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cases_state_number", "cases", ["state", "number"], unique=False)
    op.create_table(
        "change",
        sa.Column("seq", number, nullable=False),
        sa.Column("kind", words, nullable=False),
        sa.Column("encounter_seq", number, nullable=False),
        sa.Column("subject_key", number, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_change")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "request",
        sa.Column("request_id", words, nullable=False),
        sa.Column("method", words, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_request")),
    )
    op.create_table(
        "subject",
        sa.Column("key", number, nullable=False),
        sa.Column("subject_id", words, nullable=False),
        sa.Column("nik", words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_subject")),
        sa.UniqueConstraint("nik", name=op.f("uq_subject_nik")),
        sa.UniqueConstraint("subject_id", name=op.f("uq_subject_subject_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tombstone",
        sa.Column("key", number, autoincrement=False, nullable=False),
        sa.Column("subject_id", words, nullable=False),
        sa.Column("nik", words, nullable=False),
        sa.Column("encounter_ids", words, nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.Column("operator", words, nullable=False),
        sa.Column("comment", words, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_tombstone")),
        sa.UniqueConstraint("subject_id", name=op.f("uq_tombstone_subject_id")),
    )
    op.create_table(
        "encounter",
        sa.Column("seq", number, nullable=False),
        sa.Column("encounter_id", words, nullable=False),
        sa.Column("subject_key", number, nullable=True),
        sa.Column("nik", words, nullable=False),
        sa.Column("decision", words, nullable=False),
        sa.Column("reasons", words, nullable=False),
        sa.Column("state", words, nullable=False),
        sa.Column("request_id", words, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "(state = 'enrolled') = (subject_key IS NOT NULL)", name=op.f("ck_encounter_enrolled_has_subject")
        ),
        sa.ForeignKeyConstraint(["subject_key"], ["subject.key"], name=op.f("fk_encounter_subject")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_encounter")),
        sa.UniqueConstraint("encounter_id", name=op.f("uq_encounter_encounter_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_encounter_state"), "encounter", ["state"], unique=False)
    op.create_index(op.f("ix_encounter_subject_key"), "encounter", ["subject_key"], unique=False)
    op.create_table(
        "finger",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("template", sa.LargeBinary(), nullable=False),
        sa.Column("image_format", words, nullable=True),
        sa.CheckConstraint("position BETWEEN 0 AND 10", name=op.f("ck_finger_position")),
        sa.CheckConstraint("quality BETWEEN 0 AND 100", name=op.f("ck_finger_quality")),
        sa.ForeignKeyConstraint(
            ["encounter_seq"], ["encounter.seq"], name=op.f("fk_finger_encounter"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "ordinal", name=op.f("pk_finger")),
    )
    op.create_table(
        "missing_finger",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", words, nullable=False),
        sa.CheckConstraint("position BETWEEN 1 AND 10", name=op.f("ck_missing_finger_position")),
        sa.ForeignKeyConstraint(
            ["encounter_seq"], ["encounter.seq"], name=op.f("fk_missing_finger_encounter"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "position", name=op.f("pk_missing_finger")),
    )
    op.create_table(
        "finger_image",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["encounter_seq", "ordinal"],
            ["finger.encounter_seq", "finger.ordinal"],
            name=op.f("fk_finger_image_finger"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("encounter_seq", "ordinal", name=op.f("pk_finger_image")),
    )


def downgrade() -> None:
    op.drop_table("finger_image")
    op.drop_table("missing_finger")
    op.drop_table("finger")
    op.drop_index(op.f("ix_encounter_subject_key"), table_name="encounter")
    op.drop_index(op.f("ix_encounter_state"), table_name="encounter")
    op.drop_table("encounter")
    op.drop_table("tombstone")
    op.drop_table("subject")
    op.drop_table("request")
    op.drop_table("change")
    op.drop_index("ix_cases_state_number", table_name="cases")
    op.drop_table("cases")
