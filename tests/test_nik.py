"""NIK: refusal of what cannot be one, warnings for what is odd."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekam.errors import InvalidNik
from rekam.nik import NikWarningKind, Sex, mask_nik, parse_nik

BOGOR_MAN = "3201011708450001"


def test_reads_every_part() -> None:
    nik = parse_nik(f" {BOGOR_MAN}\n")
    assert nik.digits == BOGOR_MAN
    assert (nik.province_code, nik.regency_code, nik.district_code) == ("32", "32.01", "32.01.01")
    assert (nik.sex, nik.day, nik.month, nik.year) == (Sex.MALE, 17, 8, 45)
    assert nik.birth_years == (1945, 2045)
    assert nik.warnings() == ()


def test_forty_is_added_to_a_womans_day() -> None:
    nik = parse_nik("3201015708450001")
    assert (nik.sex, nik.day, nik.month) == (Sex.FEMALE, 17, 8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "320101170845000",
        "32010117084500011",
        "320101170845000a",
        "3201.01.170845.01",
        "32010117 08450001",
        "-201011708450001",
        "３２０１０１１７０８４５０００１",
        "٣٢٠١٠١١٧٠٨٤٥٠٠٠١",
        "320101170845000²",
        "0001011708450001",
        "3201011708450000",
        "3201010008450001",
        "3201013208450001",
        "3201014008450001",
        "3201017208450001",
        "3201019908450001",
        "3201011700450001",
        "3201011713450001",
        "3201013002450001",
        "3201017002450001",
        "3201013104450001",
        "3201012902450001",
        "3201016902010001",
    ],
)
def test_refuses_what_cannot_be_one_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidNik) as refusal:
        parse_nik(text)
    assert text == "" or text not in str(refusal.value)


@pytest.mark.parametrize(
    ("year", "years"), [("00", (2000,)), ("04", (1904, 2004)), ("44", (1944, 2044)), ("96", (1996, 2096))]
)
def test_29_february_needs_one_century_with_a_leap_year(year: str, years: tuple[int, ...]) -> None:
    assert parse_nik(f"3201012902{year}0001").birth_years == years


def test_unknown_region_warns_at_the_widest_level_that_is_unknown() -> None:
    for digits, code in (("99", "99"), ("3299", "32.99"), ("320199", "32.01.99")):
        [warning] = parse_nik(digits.ljust(6, "0") + BOGOR_MAN[6:]).warnings()
        assert warning.kind is NikWarningKind.UNKNOWN_REGION
        assert f"code {code} " in warning.text


def test_mismatches_warn_and_do_not_refuse() -> None:
    nik = parse_nik(BOGOR_MAN)
    assert nik.warnings(date(1945, 8, 17), Sex.MALE) == ()
    assert nik.warnings(date(2045, 8, 17)) == ()
    kinds = [w.kind for w in nik.warnings(date(1945, 8, 18), Sex.FEMALE)]
    assert kinds == [NikWarningKind.BIRTH_DATE_DIFFERS, NikWarningKind.SEX_DIFFERS]


def test_prints_masked() -> None:
    nik = parse_nik(BOGOR_MAN)
    assert str(nik) == nik.masked == mask_nik(BOGOR_MAN) == "3201************"
    assert BOGOR_MAN not in f"{nik} {nik!r} {[nik]}"


@given(
    birth=st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    sex=st.sampled_from(Sex),
    region=st.integers(10000, 999999),
    serial=st.integers(1, 9999),
)
def test_every_birth_makes_a_nik_that_agrees_with_it(birth: date, sex: Sex, region: int, serial: int) -> None:
    day = birth.day + (40 if sex is Sex.FEMALE else 0)
    nik = parse_nik(f"{region:06}{day:02}{birth:%m%y}{serial:04}")
    assert birth.year in nik.birth_years
    assert {w.kind for w in nik.warnings(birth, sex)} <= {NikWarningKind.UNKNOWN_REGION}


@given(st.text())
def test_any_text_is_a_nik_or_refused(text: str) -> None:
    try:
        nik = parse_nik(text)
    except InvalidNik:
        return
    assert nik.birth_years
    assert nik.digits.isascii()
