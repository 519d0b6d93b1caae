"""The national identity number of Indonesia: sixteen digits.

    province 2, regency 2, district 2, date of birth DDMMYY (day + 40 for women), serial 4 from 0001

It has no check digit, and the century of birth is not in it. It never changes, even when it was given with a
mistake or its holder has moved: a mismatch or a region code nobody knows is a warning, never a refusal.
"""

import csv
import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files

from rekam.errors import InvalidNik

_CENTURIES = (1900, 2000)
_DIGITS = re.compile(r"[0-9]{16}")


class Sex(StrEnum):
    """The sex a NIK was given for."""

    FEMALE = "female"
    MALE = "male"


class NikWarningKind(StrEnum):
    """What is odd about a NIK, as a stable word."""

    UNKNOWN_REGION = "unknown_region"
    BIRTH_DATE_DIFFERS = "birth_date_differs"
    SEX_DIFFERS = "sex_differs"


@dataclass(frozen=True, slots=True)
class NikWarning:
    """Something odd that does not invalidate the NIK; `text` is for a person and does not repeat it."""

    kind: NikWarningKind
    text: str


@dataclass(frozen=True, slots=True, repr=False)
class Nik:
    """A number that can be a NIK; made by `parse_nik`. Prints masked: `digits` is the number in full."""

    digits: str

    def __str__(self) -> str:
        return self.masked

    def __repr__(self) -> str:
        return f"Nik({self.masked})"

    @property
    def masked(self) -> str:
        """What may be logged: province and regency, the person hidden."""
        return mask_nik(self.digits)

    @property
    def province_code(self) -> str:
        """`32`."""
        return self.digits[:2]

    @property
    def regency_code(self) -> str:
        """`32.01`."""
        return f"{self.digits[:2]}.{self.digits[2:4]}"

    @property
    def district_code(self) -> str:
        """`32.01.01`."""
        return f"{self.regency_code}.{self.digits[4:6]}"

    @property
    def sex(self) -> Sex:
        """The sex it was given for."""
        return Sex.FEMALE if int(self.digits[6:8]) > 40 else Sex.MALE

    @property
    def day(self) -> int:
        """Day of birth, 1-31."""
        return int(self.digits[6:8]) % 40

    @property
    def month(self) -> int:
        """Month of birth, 1-12."""
        return int(self.digits[8:10])

    @property
    def year(self) -> int:
        """Year of birth without its century, 0-99."""
        return int(self.digits[10:12])

    @property
    def birth_years(self) -> tuple[int, ...]:
        """The years of this and the last century in which the date exists; at least one."""
        return _years(self.day, self.month, self.year)

    def warnings(self, birth_date: date | None = None, sex: Sex | None = None) -> tuple[NikWarning, ...]:
        """What is odd about it, compared with what else is known of its holder."""
        found = []
        for level, code in (
            ("province", self.province_code),
            ("regency", self.regency_code),
            ("district", self.district_code),
        ):
            if code not in _regions():
                text = f"{level} code {code} is not in today's table: it may be retired or mistyped"
                found.append(NikWarning(NikWarningKind.UNKNOWN_REGION, text))
                break
        if birth_date is not None and (birth_date.day, birth_date.month, birth_date.year % 100) != (
            self.day,
            self.month,
            self.year,
        ):
            text = "the date of birth in the NIK differs from the one given"
            found.append(NikWarning(NikWarningKind.BIRTH_DATE_DIFFERS, text))
        if sex is not None and sex is not self.sex:
            text = f"the NIK was given for a {self.sex} person, the record says {sex}"
            found.append(NikWarning(NikWarningKind.SEX_DIFFERS, text))
        return tuple(found)


def parse_nik(text: str) -> Nik:
    """Read a NIK; space around it is ignored.

    Raises `InvalidNik` for what cannot be one: other than 16 ASCII digits, province 00, a date no calendar
    has, serial 0000. Its message does not repeat the number.
    """
    digits = text.strip()
    if not _DIGITS.fullmatch(digits):
        raise InvalidNik("a NIK has 16 digits, 0 to 9")
    if digits[:2] == "00":
        raise InvalidNik("a NIK begins with a province code, and there is no province 00")
    day, month, year = int(digits[6:8]), int(digits[8:10]), int(digits[10:12])
    if not _years(day - 40 if day > 40 else day, month, year):
        raise InvalidNik(
            "digits 7 to 12 of a NIK are a date of birth, DDMMYY, with 40 added to a woman's day"
        )
    if digits[12:] == "0000":
        raise InvalidNik("the last four digits of a NIK count from 0001")
    return Nik(digits)


def mask_nik(digits: str) -> str:
    """What of a NIK may be logged: province and regency, the rest hidden."""
    return digits[:4] + "*" * len(digits[4:])


def _years(day: int, month: int, year: int) -> tuple[int, ...]:
    return tuple(century + year for century in _CENTURIES if _exists(day, month, century + year))


def _exists(day: int, month: int, year: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


@cache
def _regions() -> frozenset[str]:
    """Dotted codes of provinces, regencies and districts, read once."""
    table = (files("rekam") / "regions.csv").read_text(encoding="utf-8")
    return frozenset(row["code"] for row in csv.DictReader(table.splitlines()))
