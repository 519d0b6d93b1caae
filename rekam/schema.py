"""The tables, in SQLite and PostgreSQL. A change here needs a revision in `migrations/versions`.

subject ──< encounter ──< sample ── sample_image
   │            ├──────< missing_sample
   │            └─────── signature
   └ (deleted) tombstone       cases, request, change: by id or number, so they outlive what they name
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Only an INTEGER of SQLite numbers rows; it has 64 bits there.
Number = BigInteger().with_variant(Integer(), "sqlite")
# Compared byte by byte, as SQLite does: a new library of the system must not reorder an index of NIKs.
Words = Text().with_variant(Text(collation="C"), "postgresql")


class Moment(TypeDecorator[datetime]):
    """A moment as microseconds since 1970 UTC; a naive one is a mistake of the caller."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the column."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a moment needs a time zone")
        return (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the column, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# sqlite_autoincrement: numbers are never given twice, even after deletion.
# Biometrics lie in tables with row ids, which grow at their end: SQLite then splits no pages, and a split
# leaves copies of rows in the gaps of pages, which secure_delete does not overwrite.

subject = Table(
    "subject",
    metadata,
    Column("key", Number, primary_key=True),
    Column("subject_id", Words, nullable=False, unique=True),
    Column("nik", Words, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("key", Number, primary_key=True, autoincrement=False),
    Column("subject_id", Words, nullable=False, unique=True),
    Column("nik", Words, nullable=False),
    Column("encounter_ids", Words, nullable=False),
    Column("deleted_at", Moment, nullable=False),
    Column("operator", Words, nullable=False),
    Column("comment", Words, nullable=False),
)

encounter = Table(
    "encounter",
    metadata,
    Column("seq", Number, primary_key=True),
    Column("encounter_id", Words, nullable=False, unique=True),
    Column("subject_key", Number, ForeignKey("subject.key"), index=True),
    Column("nik", Words, nullable=False),
    Column("decision", Words, nullable=False),
    Column("reasons", Words, nullable=False),
    Column("state", Words, nullable=False, index=True),
    Column("request_id", Words, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    CheckConstraint("(state = 'enrolled') = (subject_key IS NOT NULL)", name="enrolled_has_subject"),
    sqlite_autoincrement=True,
)

# Position: ISO codes of fingers (ISO/IEC 19794-2) and eyes (19794-6), 0 where not known; 0 for the one face.

sample = Table(
    "sample",
    metadata,
    Column(
        "encounter_seq",
        Number,
        ForeignKey("encounter.seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("modality", Words, nullable=False, index=True),  # counted without reading templates
    Column("position", Integer, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("template", LargeBinary, nullable=False),
    Column("image_format", Words),
    CheckConstraint(
        "(modality = 'fingerprint' AND position BETWEEN 0 AND 10) "
        "OR (modality = 'iris' AND position BETWEEN 0 AND 2) "
        "OR (modality = 'face' AND position = 0)",
        name="position",
    ),
    CheckConstraint("quality BETWEEN 0 AND 100", name="quality"),
)

sample_image = Table(
    "sample_image",
    metadata,
    Column("encounter_seq", Number, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("image", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["encounter_seq", "ordinal"], ["sample.encounter_seq", "sample.ordinal"], ondelete="CASCADE"
    ),
)

missing_sample = Table(
    "missing_sample",
    metadata,
    Column(
        "encounter_seq",
        Number,
        ForeignKey("encounter.seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("modality", Words, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("reason", Words, nullable=False),
    CheckConstraint(
        "(modality = 'fingerprint' AND position BETWEEN 1 AND 10) "
        "OR (modality = 'iris' AND position BETWEEN 1 AND 2) "
        "OR (modality = 'face' AND position = 0)",
        name="position",
    ),
)

# The signature as it was sent, an image, never compared; or why there is none.
signature = Table(
    "signature",
    metadata,
    Column(
        "encounter_seq",
        Number,
        ForeignKey("encounter.seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("image", LargeBinary),
    Column("missing", Words),
    CheckConstraint("(image IS NULL) = (missing IS NOT NULL)", name="image_or_reason"),
)

cases = Table(
    "cases",
    metadata,
    Column("number", Number, primary_key=True),
    Column("case_id", Words, nullable=False, unique=True),
    Column("encounter_id", Words, nullable=False, unique=True),
    Column("nik", Words, nullable=False),
    Column("decision", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("resolution", Words),
    Column("operator", Words),
    Column("comment", Words),
    Column("resolved_at", Moment),
    Column("subject_id", Words),
    Index("ix_cases_state_number", "state", "number"),
    CheckConstraint("(state = 'resolved') = (resolution IS NOT NULL)", name="resolved_has_resolution"),
    sqlite_autoincrement=True,
)

request = Table(
    "request",
    metadata,
    Column("request_id", Words, primary_key=True),
    Column("method", Words, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
)

change = Table(
    "change",
    metadata,
    Column("seq", Number, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("encounter_seq", Number, nullable=False),
    Column("subject_key", Number),
    sqlite_autoincrement=True,
)

# Each time a process opened the database: a name nobody else has, and the last change there was by then. A
# copy that goes on by itself has other openings; an index made under one of those is of another history.
opening = Table(
    "opening",
    metadata,
    Column("number", Number, primary_key=True),
    Column("token", Words, nullable=False, unique=True),
    Column("change_seq", Number, nullable=False),
    sqlite_autoincrement=True,
)
