"""The signature of an encounter, or why there is none, kept beside its samples."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "signature",
        sa.Column("encounter_seq", number, autoincrement=False, nullable=False),
        sa.Column("image", sa.LargeBinary()),
        sa.Column("missing", words),
        sa.CheckConstraint(
            "(image IS NULL) = (missing IS NOT NULL)", name=op.f("ck_signature_image_or_reason")
        ),
        sa.ForeignKeyConstraint(
            ["encounter_seq"], ["encounter.seq"], name=op.f("fk_signature_encounter"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("encounter_seq", name=op.f("pk_signature")),
    )
