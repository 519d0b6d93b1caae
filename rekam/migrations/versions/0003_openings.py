"""Every opening of the database, by which an index knows whether it is of this history."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
words = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "opening",
        sa.Column("number", number, nullable=False),
        sa.Column("token", words, nullable=False),
        sa.Column("change_seq", number, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_opening")),
        sa.UniqueConstraint("token", name=op.f("uq_opening_token")),
        sqlite_autoincrement=True,
    )
