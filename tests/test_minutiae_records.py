"""Minutiae records and card minutiae: bytes kept, lies refused, templates from and to them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy import SETS
from benchmarks.foreign_templates import error_rates, mindtct_view, through_record
from capture.errors import CaptureError, RecordRefused
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.formats.card_minutiae import (
    CardMinutiae,
    CardOrder,
    CardSize,
    read_card_minutiae,
    read_card_template,
)
from capture.formats.extended_data import (
    CoresAndDeltas,
    ExtendedData,
    RidgeCount,
    RidgeCounts,
    SingularPoint,
    ZonalQuality,
    extended_block,
    read_extended_data,
)
from capture.formats.minutiae_record import (
    ExtendedBlock,
    FingerView,
    Minutia,
    MinutiaeRecord,
    MinutiaType,
    RecordFormat,
    ScannedImage,
    read_ansi_378,
    read_iso_2005,
    read_minutiae_record,
)
from capture.formats.minutiae_template import (
    UNKNOWN_QUALITY,
    card_of,
    record_of,
    template_of,
    template_of_card,
)
from capture.formats.record_conversion import converted
from capture.formats.representation import Capture, Certification, QualityBlock
from capture.sample import FingerPosition
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import PARAMS, cylinders
from rekam.offline.prints import print_sets, read_print
from tests.minutiae import made_template

ISO_2005, ISO_2011, ANSI_378 = RecordFormat.ISO_2005, RecordFormat.ISO_2011, RecordFormat.ANSI_378

# The minutiae of the standards' examples: type, x, y, angle in ISO units, angle in ANSI units, quality.
EXAMPLE_LEFT_INDEX = [
    (1, 100, 14, 80, 56, 90), (1, 164, 17, 60, 43, 80), (2, 55, 18, 16, 11, 90), (2, 74, 22, 54, 38, 60),
    (1, 112, 22, 64, 45, 80), (2, 42, 31, 31, 22, 90), (2, 147, 35, 36, 26, 90), (1, 88, 38, 117, 83, 40),
    (2, 43, 42, 3, 2, 80), (1, 56, 48, 23, 17, 70), (1, 132, 49, 51, 36, 90), (2, 71, 50, 47, 33, 80),
    (0, 95, 51, 58, 41, 90), (1, 112, 53, 94, 66, 50), (2, 135, 58, 23, 16, 80), (0, 41, 60, 42, 30, 70),
    (2, 67, 62, 103, 73, 90), (1, 91, 63, 94, 66, 80), (1, 112, 65, 23, 17, 60), (1, 53, 71, 32, 23, 90),
    (2, 104, 74, 9, 6, 80), (1, 75, 79, 15, 11, 90), (2, 48, 80, 65, 46, 90), (1, 130, 89, 32, 23, 80),
    (2, 63, 95, 90, 63, 80), (1, 47, 108, 117, 82, 90), (2, 126, 115, 122, 86, 30),
]  # fmt: skip
EXAMPLE_RIGHT_INDEX = [
    (1, 40, 93, 0, 0, 90), (2, 116, 100, 0, 0, 80), (1, 82, 95, 9, 6, 70), (2, 140, 113, 11, 8, 70),
    (1, 122, 135, 13, 9, 80), (2, 55, 72, 15, 11, 50), (1, 94, 74, 17, 12, 60), (1, 155, 62, 30, 21, 80),
    (2, 42, 64, 39, 28, 70), (1, 155, 85, 42, 30, 80), (2, 96, 192, 44, 31, 80), (1, 114, 86, 60, 43, 80),
    (2, 142, 90, 64, 45, 70), (1, 57, 137, 71, 50, 90), (1, 131, 75, 78, 55, 80), (1, 45, 113, 85, 60, 80),
    (2, 111, 171, 92, 65, 50), (1, 95, 62, 107, 75, 60), (2, 61, 114, 142, 100, 80),
    (2, 143, 72, 178, 125, 80), (1, 63, 104, 213, 150, 70), (2, 125, 73, 249, 175, 40),
]  # fmt: skip
EXAMPLES = {
    ISO_2005: "iso19794/fmr_2005_annex_c2_example.raw",
    ANSI_378: "incits378/annex_b2_example.raw",
}


def example(kind: RecordFormat) -> MinutiaeRecord:
    """The example of annex C.2 of ISO/IEC 19794-2:2005, or of annex B.2 of ANSI 378, from its values."""
    views = []
    for finger, quality, rows in ((7, 90, EXAMPLE_LEFT_INDEX), (2, 70, EXAMPLE_RIGHT_INDEX)):
        minutiae = tuple(
            Minutia(MinutiaType(code), x, y, ansi if kind is ANSI_378 else iso, good)
            for code, x, y, iso, ansi, good in rows
        )
        quality_of_view = Capture(qualities=(QualityBlock(quality),))
        views.append(FingerView(finger, ScannedImage(512, 512), minutiae, capture=quality_of_view))
    counts = RidgeCounts(1, (RidgeCount(1, 20, 12), RidgeCount(5, 7, 5)))
    views[1] = replace(views[1], extended=(extended_block(counts, kind),))
    # The ISO example declares a byte less than it holds.
    return MinutiaeRecord(
        kind,
        tuple(views),
        device=0xB5,
        product=0x00420011 if kind is ANSI_378 else 0,
        declared_length=340 if kind is ISO_2005 else None,
    )


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_standards_examples_are_read_written_and_built_byte_for_byte(
    kind: RecordFormat, development_data: Path
) -> None:
    data = (development_data / "conformance" / EXAMPLES[kind]).read_bytes()
    record = read_minutiae_record(data)
    assert record == example(kind)
    assert record.to_bytes() == data
    assert example(kind).to_bytes() == data


@pytest.mark.parametrize("kind", RecordFormat)
def test_bytes_behind_a_record_are_kept(kind: RecordFormat) -> None:
    data = MinutiaeRecord(kind, (small_view(),)).to_bytes()
    record = read_minutiae_record(data + b"more")
    assert record.trailing == b"more"
    assert record.to_bytes() == data + b"more"


def small_view() -> FingerView:
    minutiae = (Minutia(MinutiaType.ENDING, 3, 4, 5, 60), Minutia(MinutiaType.OTHER, 99, 79, 179, 0))
    vendors_own = (ExtendedBlock(0x0101, b"own"), ExtendedBlock(9, b""))
    return FingerView(2, ScannedImage(100, 80), minutiae, extended=vendors_own)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


# Header of 24 bytes, view header of 4, two minutiae of 6, extended data from 40: 2 + 7 + 4.
LIES_2005 = [
    (0, b"FIR\x00", 0),
    (4, b" 10\x00", 4),
    (8, b"\x00\x00\x00\x10", None),  # shorter than its header
    (8, b"\x00\x00\x00\x33", None),  # two bytes less than it holds
    (8, b"\x00\x00\x00\x36", 8),  # more than there is
    (14, b"\x00\x00", 14),  # no width
    (16, b"\x00\x00", 14),  # no height
    (18, b"\x00\x00", 18),  # no resolution
    (20, b"\x00\x20", 18),  # 81 ppi
    (22, b"\x00", 22),  # no view
    (22, b"\x02", None),  # a view too many
    (23, b"\x01", 23),  # reserved
    (24, b"\x0b", 24),  # an eleventh finger
    (26, b"\x65", 26),  # quality 101
    (27, b"\x03", None),  # a minutia too many
    (27, b"\x01", None),  # one too few
    (28, b"\xc0", 28),  # reserved type
    (28, b"\x40\x64", 28),  # outside its image
    (30, b"\x80", 30),  # reserved bits
    (40, b"\x00\x0c", None),  # extended data longer than its blocks
    (40, b"\x00\x0a", None),  # and shorter
    (44, b"\x00\x03", 44),  # a block shorter than its header
    (44, b"\x00\x0c", None),  # a block longer than the extended data
]


@pytest.mark.parametrize(("at", "new", "offset"), LIES_2005)
def test_a_lie_in_an_iso_2005_record_is_refused(at: int, new: bytes, offset: int | None) -> None:
    data = MinutiaeRecord(ISO_2005, (small_view(),)).to_bytes()
    assert len(data) == 0x35
    with pytest.raises(RecordRefused) as refused:
        read_minutiae_record(changed(data, at, new))
    if offset is not None:
        assert refused.value.offset == offset
        assert f"byte {offset}: " in str(refused.value)


@pytest.mark.parametrize(("kind", "header"), [(ISO_2005, 24), (ANSI_378, 26), (RecordFormat.ISO_2011, 15)])
def test_a_length_shorter_than_the_header_is_named(kind: RecordFormat, header: int) -> None:
    data = MinutiaeRecord(kind, (small_view(),)).to_bytes()
    size = 2 if kind is ANSI_378 else 4
    for declared in (1, header - 1):
        words = f"byte 8: the record declares {declared} bytes, its header alone has {header}"
        with pytest.raises(RecordRefused, match=words):
            read_minutiae_record(changed(data, 8, declared.to_bytes(size, "big")))


LIES_ANSI = [
    (8, b"\x00\x36", None),
    (8, b"\x00\x38", None),
    (20, b"\x00\x01", 20),
    (34, b"\xb4", 34),  # 360 degrees
]


@pytest.mark.parametrize(("at", "new", "offset"), LIES_ANSI)
def test_a_lie_in_an_ansi_record_is_refused(at: int, new: bytes, offset: int | None) -> None:
    data = MinutiaeRecord(ANSI_378, (small_view(),)).to_bytes()
    with pytest.raises(RecordRefused) as refused:
        read_ansi_378(changed(data, at, new))
    assert offset in (None, refused.value.offset)
    with pytest.raises(RecordRefused):
        read_minutiae_record(changed(data, at, new))


LIES_2011 = [
    (8, b"\x00\x00\x00\x4c", None),
    (12, b"\x00\x00", 12),  # no representation
    (12, b"\x00\x02", None),  # one too many
    (14, b"\x02", 14),  # certified is yes or no
    (14, b"\x01", None),  # certifications that are not there
    (15, b"\x00\x00\x00\x3d", None),  # representation too short
    (15, b"\x00\x00\x00\x03", 15),
    (34, b"\x65", 34),  # quality 101
    (39, b"\x0b", 39),  # an eleventh finger
    (41, b"\x00\x00", 41),  # no resolution
    (46, b"\x00\x00", 46),  # no width
    (50, b"\x70", 50),  # minutiae of seven bytes
]


@pytest.mark.parametrize(("at", "new", "offset"), LIES_2011)
def test_a_lie_in_an_iso_2011_record_is_refused(at: int, new: bytes, offset: int | None) -> None:
    data = MinutiaeRecord(ISO_2011, (small_view(),)).to_bytes()
    with pytest.raises(RecordRefused) as refused:
        read_minutiae_record(changed(data, at, new))
    assert offset in (None, refused.value.offset)


def test_an_ansi_record_beyond_64_kib_has_its_length_in_six_bytes() -> None:
    block = ExtendedBlock(0x0101, bytes(40_000))
    record = MinutiaeRecord(ANSI_378, (replace(small_view(), extended=(block,)),) * 2)
    data = record.to_bytes()
    assert data[8:14] == b"\x00\x00" + len(data).to_bytes(4, "big")
    assert read_minutiae_record(data) == record
    # Six bytes for a length that fits two are no ANSI record, and no ISO one.
    small = MinutiaeRecord(ANSI_378, (small_view(),)).to_bytes()
    padded = small[:8] + b"\x00\x00" + (len(small) + 4).to_bytes(4, "big") + small[10:]
    with pytest.raises(RecordRefused):
        read_minutiae_record(padded)


def test_an_iso_record_beyond_64_kib_is_no_ansi_record() -> None:
    block = ExtendedBlock(0x0101, bytes(40_000))
    record = MinutiaeRecord(ISO_2005, (replace(small_view(), extended=(block,)),) * 2)
    assert read_minutiae_record(record.to_bytes()) == record


@pytest.mark.parametrize(
    "record",
    [
        MinutiaeRecord(ISO_2005, ()),
        MinutiaeRecord(ISO_2005, (replace(small_view(), number=16),)),
        MinutiaeRecord(ISO_2005, (replace(small_view(), impression=24),)),
        MinutiaeRecord(ISO_2005, (small_view(),), device=0x1000),
        MinutiaeRecord(ISO_2005, (small_view(),), product=1),
        MinutiaeRecord(ISO_2005, (small_view(), replace(small_view(), image=ScannedImage(200, 80)))),
        MinutiaeRecord(ISO_2005, (small_view(),), declared_length=30),
        MinutiaeRecord(ISO_2011, (small_view(),), device=1),
        MinutiaeRecord(ISO_2011, (replace(small_view(), minutia_bytes=5),)),
        MinutiaeRecord(ANSI_378, (replace(small_view(), capture=Capture()),)),
    ],
)
def test_what_has_no_place_in_a_record_is_not_written(record: MinutiaeRecord) -> None:
    with pytest.raises(RecordRefused):
        record.to_bytes()


# --- properties


def numbers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


@st.composite
def views(draw: st.DrawFn, kind: RecordFormat, image: ScannedImage) -> FingerView:
    of_2011 = kind is ISO_2011
    minutia_bytes = draw(st.sampled_from([5, 6])) if of_2011 else 6
    minutia = st.builds(
        Minutia,
        st.sampled_from(MinutiaType),
        st.integers(0, min(image.width - 1, 0x3FFF)),
        st.integers(0, min(image.height - 1, 0x3FFF)),
        st.integers(0, kind.angles - 1),
        numbers(8) if minutia_bytes == 6 else st.just(254),
    )
    score = st.one_of(st.integers(0, 100), st.sampled_from([254, 255]))
    blocks = st.lists(st.builds(QualityBlock, score, numbers(16), numbers(16)), max_size=3).map(tuple)
    capture = (
        st.builds(Capture, st.binary(min_size=9, max_size=9), numbers(8), numbers(16), numbers(16), blocks)
        if of_2011
        else st.builds(Capture, qualities=st.tuples(st.builds(QualityBlock, score)))
    )
    return FingerView(
        position=draw(st.integers(0, 10)),
        image=image,
        minutiae=tuple(draw(st.lists(minutia, max_size=6))),
        number=draw(numbers(8 if of_2011 else 4)),
        impression=draw(numbers(8 if of_2011 else 4)),
        capture=draw(capture),
        endings=draw(numbers(4)) if of_2011 else 0,
        minutia_bytes=minutia_bytes,
        extended=tuple(
            draw(st.lists(st.builds(ExtendedBlock, numbers(16), st.binary(max_size=12)), max_size=3))
        ),
    )


@st.composite
def records(draw: st.DrawFn) -> MinutiaeRecord:
    kind = draw(st.sampled_from(RecordFormat))
    images = st.builds(
        ScannedImage,
        st.integers(1, 65535),
        st.integers(1, 65535),
        st.integers(94, 1600),
        st.integers(94, 1600),
    )
    image = draw(images)
    count = draw(st.integers(1, 3))
    made = [draw(views(kind, draw(images) if kind is ISO_2011 else image)) for _ in range(count)]
    trailing = draw(st.binary(max_size=5))
    if kind is ISO_2011:
        certified = draw(st.booleans())
        if certified:
            several = st.lists(st.builds(Certification, numbers(16), numbers(8)), max_size=2).map(tuple)
            made = [replace(view, certifications=draw(several)) for view in made]
        return MinutiaeRecord(kind, tuple(made), certified=certified, trailing=trailing)
    product = draw(numbers(32)) if kind is ANSI_378 else 0
    return MinutiaeRecord(kind, tuple(made), draw(numbers(4)), draw(numbers(12)), product, trailing=trailing)


@given(records())
def test_records_of_every_format_survive_writing_and_reading(record: MinutiaeRecord) -> None:
    data = record.to_bytes()
    assert read_minutiae_record(data) == record


def refused_or_kept(data: bytes, read: Callable[[bytes], MinutiaeRecord | CardMinutiae]) -> None:
    try:
        record = read(data)
    except RecordRefused:
        return
    assert record.to_bytes() == data


@given(st.sampled_from([b"", b"FMR\x00 20\x00", b"FMR\x00030\x00"]), st.binary(max_size=120))
def test_any_bytes_are_refused_or_kept(begin: bytes, rest: bytes) -> None:
    refused_or_kept(begin + rest, read_minutiae_record)


@given(records(), st.data())
def test_a_damaged_record_is_refused_or_kept(record: MinutiaeRecord, data: st.DataObject) -> None:
    whole = record.to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(min_size=1, max_size=4))
    refused_or_kept(changed(whole, at, new), read_minutiae_record)
    refused_or_kept(whole[:at], read_minutiae_record)
    refused_or_kept(whole[:at] + new + whole[at:], read_minutiae_record)


# --- cards


def test_card_minutiae_have_the_bytes_of_the_standard() -> None:
    minutiae = (Minutia(MinutiaType.ENDING, 0x12, 0x34, 5), Minutia(MinutiaType.BIFURCATION, 255, 0, 63))
    compact = CardMinutiae(CardSize.COMPACT, minutiae)
    assert compact.to_bytes() == bytes.fromhex("123445 ff00bf")
    normal = CardMinutiae(CardSize.NORMAL, minutiae)
    assert normal.to_bytes() == bytes.fromhex("4012003405 80ff00003f")
    wrapped = replace(compact, before=(), after=((0x85, b"\x01"),))
    assert wrapped.to_bytes() == bytes.fromhex("7f2e0b 8106123445ff00bf 850101")
    assert read_card_template(wrapped.to_bytes(), CardSize.COMPACT) == wrapped


@pytest.mark.parametrize(
    "data",
    [
        "7f2f0b8106123445ff00bf850101",  # another tag
        "7f2e0c8106123445ff00bf850101",  # longer than it is
        "7f2e0a8106123445ff00bf850101",  # shorter
        "7f2e810b8106123445ff00bf850101",  # a length in more bytes than it needs
        "7f2e03850101",  # no minutiae
        "7f2e0a81031234458103123445",  # minutiae twice
        "7f2e0481021234",  # no whole minutia
        "7f2e0581031234c5",  # reserved type
    ],
)
def test_a_card_template_that_is_none_is_refused(data: str) -> None:
    with pytest.raises(RecordRefused):
        read_card_template(bytes.fromhex(data), CardSize.COMPACT)


@given(st.binary(max_size=40), st.sampled_from(CardSize))
def test_any_card_bytes_are_refused_or_kept(data: bytes, size: CardSize) -> None:
    refused_or_kept(data, lambda given_: read_card_minutiae(given_, size))
    refused_or_kept(b"\x7f\x2e" + data, lambda given_: read_card_template(given_, size))
    inner = bytes([0x81, min(len(data), 127)]) + data
    refused_or_kept(
        b"\x7f\x2e" + bytes([len(inner)]) + inner, lambda given_: read_card_template(given_, size)
    )


def test_a_long_card_template_codes_its_lengths_in_several_bytes() -> None:
    minutiae = tuple(Minutia(MinutiaType.ENDING, k, k, 0) for k in range(90))
    for size in CardSize:
        card = CardMinutiae(size, minutiae, before=((0x95, bytes(200)),))
        assert read_card_template(card.to_bytes(), size) == card


def test_card_orders() -> None:
    a, b, c = (Minutia(MinutiaType.ENDING, x, y, angle) for x, y, angle in ((0, 9, 2), (0, 3, 1), (5, 6, 0)))
    given_ = (a, b, c)  # centre (2, 6): squared distances 13, 13, 9
    assert CardOrder.NONE.sorted(given_) == (a, b, c)
    assert CardOrder.X_Y_ASCENDING.sorted(given_) == (b, a, c)
    assert CardOrder.X_Y_DESCENDING.sorted(given_) == (c, a, b)
    assert CardOrder.Y_X_ASCENDING.sorted(given_) == (b, c, a)
    assert CardOrder.ANGLE_DESCENDING.sorted(given_) == (a, b, c)
    assert CardOrder.POLAR_ASCENDING.sorted(given_) == (c, b, a)


# --- extended data


def points(kind: RecordFormat, angles: int) -> st.SearchStrategy[tuple[SingularPoint, ...]]:
    def some(with_angles: st.SearchStrategy[bool]) -> st.SearchStrategy[SingularPoint]:
        turns = st.tuples(*[numbers(8)] * angles)
        return with_angles.flatmap(
            lambda has: st.builds(SingularPoint, numbers(14), numbers(14), turns if has else st.just(()))
        )

    if kind is not ANSI_378:
        return st.lists(some(st.booleans()), max_size=15).map(tuple)
    return st.booleans().flatmap(lambda all_: st.lists(some(st.just(all_)), max_size=15).map(tuple))


@st.composite
def extended_data(draw: st.DrawFn) -> tuple[ExtendedData, RecordFormat]:
    kind = draw(st.sampled_from(RecordFormat))
    count = st.builds(RidgeCount, numbers(8), numbers(8), numbers(8))
    choices: list[st.SearchStrategy[ExtendedData]] = [
        st.builds(RidgeCounts, numbers(8), st.lists(count, max_size=9).map(tuple)),
        st.builds(CoresAndDeltas, points(kind, 1), points(kind, 3)),
    ]
    if kind is not ANSI_378:
        made_by = numbers(16) if kind is ISO_2011 else st.just(0)
        side = st.integers(1, 255)
        choices.append(
            st.builds(ZonalQuality, side, side, st.integers(1, 8), st.binary(max_size=9), made_by, made_by)
        )
    return draw(st.one_of(choices)), kind


@given(extended_data())
def test_extended_data_survives_writing_and_reading(given_: tuple[ExtendedData, RecordFormat]) -> None:
    data, kind = given_
    assert read_extended_data(extended_block(data, kind), kind) == data


@given(st.integers(0, 4), st.binary(max_size=30), st.sampled_from(RecordFormat))
def test_any_extended_data_is_refused_or_kept(code: int, data: bytes, kind: RecordFormat) -> None:
    block = ExtendedBlock(code, data)
    try:
        read = read_extended_data(block, kind)
    except RecordRefused:
        return
    assert read is None or extended_block(read, kind) == block


def test_cores_have_the_bytes_of_each_standard() -> None:
    data = CoresAndDeltas((SingularPoint(1, 2, (90,)),), (SingularPoint(3, 4),))
    assert extended_block(data, ISO_2005).data == bytes.fromhex("01 40010002 5a 01 00030004")
    assert extended_block(data, ANSI_378).data == bytes.fromhex("41 00010002 5a 01 00030004")


# --- from format to format


def test_a_record_keeps_everything_the_other_format_knows() -> None:
    iso = example(ISO_2005)
    ansi = converted(iso, ANSI_378)
    assert [view.extended for view in ansi.views] == [view.extended for view in iso.views]
    for mine, theirs in zip(ansi.views, example(ANSI_378).views, strict=True):
        assert mine.quality == theirs.quality
        # The examples round a few angles to the other side.
        for m, t in zip(mine.minutiae, theirs.minutiae, strict=True):
            assert m._replace(angle=0) == t._replace(angle=0)
            assert abs(m.angle - t.angle) <= 1
    newer = converted(ansi, ISO_2011)
    assert read_minutiae_record(newer.to_bytes()) == newer
    assert newer.views[0].capture.device == 0xB5


def test_angles_of_singular_points_change_units() -> None:
    block = extended_block(CoresAndDeltas((SingularPoint(1, 2, (64,)),), ()), ISO_2005)
    record = MinutiaeRecord(ISO_2005, (replace(small_view(), extended=(block,)),))
    (turned,) = converted(record, ANSI_378).views[0].extended
    assert read_extended_data(turned, ANSI_378) == CoresAndDeltas((SingularPoint(1, 2, (45,)),), ())


# --- templates


def graded_template(n: int = 40) -> FingerprintTemplate:
    template = made_template(n, seed=5, side=400)
    return replace(
        template,
        reliability=np.linspace(1, 0.31, n).astype(np.float32),
        ending=np.arange(n) % 3 > 0,
        position=FingerPosition.LEFT_RING,
        quality=73,
    )


@pytest.mark.parametrize("kind", RecordFormat)
def test_a_template_survives_a_record(kind: RecordFormat) -> None:
    template = graded_template()
    record = read_minutiae_record(record_of([template, template], kind).to_bytes())
    assert [view.number for view in record.views] == [0, 1]
    back = template_of(record.views[1], kind)
    assert back.extractor is Extractor.FOREIGN
    assert (back.width, back.height) == (template.width, template.height)
    assert (back.position, back.quality) == (template.position, template.quality)
    np.testing.assert_array_equal(back.x, np.rint(template.x))
    np.testing.assert_array_equal(back.y, np.rint(template.y))
    np.testing.assert_array_equal(back.ending, template.ending)
    turned = np.angle(np.exp(1j * (back.direction - template.direction)))
    assert np.abs(turned).max() <= np.pi / kind.angles + 1e-6
    # From there on nothing changes any more.
    again = record_of([back], kind)
    assert again.views[0].minutiae == record.views[0].minutiae


@pytest.mark.parametrize("kind", RecordFormat)
def test_no_foreign_minutia_is_left_out_of_comparison(kind: RecordFormat) -> None:
    unknown = [
        Minutia(MinutiaType.OTHER, 10 + k, 20, 0, quality) for k, quality in enumerate((1, 0, 254, 100))
    ]
    back = template_of(FingerView(0, ScannedImage(100, 80), tuple(unknown)), kind)
    assert (back.reliability >= PARAMS.min_reliability).all()
    np.testing.assert_allclose(back.reliability, [1, 1, 1, 0.505])
    np.testing.assert_array_equal(back.x, [11, 12, 13, 10])
    assert back.ending.all()
    assert back.quality == UNKNOWN_QUALITY


def test_resolution_is_scaled_to_500_ppi_each_way_by_itself() -> None:
    minutiae = (Minutia(MinutiaType.ENDING, 394, 100, 64, 90),)
    view = FingerView(0, ScannedImage(800, 300, 394, 197), minutiae)
    template = template_of(view, ISO_2005)
    assert (template.width, template.height) == (400, 300)
    np.testing.assert_allclose([template.x[0], template.y[0]], [196.85, 100], atol=0.01)
    assert template.direction[0] == pytest.approx(np.pi / 2)
    assert template_of(view, ANSI_378).direction[0] == pytest.approx(np.radians(128))


def test_of_too_many_minutiae_the_best_are_kept() -> None:
    minutiae = tuple(Minutia(MinutiaType.ENDING, k, k, 0, 1 + k % 100) for k in range(150))
    template = template_of(FingerView(0, ScannedImage(200, 200), minutiae), ISO_2005)
    assert len(template) == 99
    assert template.x[0] == 99


def test_an_image_no_template_can_have_is_refused() -> None:
    with pytest.raises(RecordRefused):
        template_of(FingerView(0, ScannedImage(2100, 100), ()), ISO_2005)


@pytest.mark.parametrize("size", CardSize)
def test_a_card_gets_the_most_reliable_minutiae_in_its_order(size: CardSize) -> None:
    template = graded_template(90)
    card = card_of(template, size, max_minutiae=20, order=CardOrder.X_Y_ASCENDING)
    assert len(card.minutiae) == 20
    assert list(card.minutiae) == sorted(card.minutiae, key=lambda m: (m.x, m.y))
    back = template_of_card(read_card_minutiae(card.to_bytes(), size), FingerPosition.LEFT_RING)
    step = size.unit / 25.4 * 500
    for k in range(20):
        apart = np.hypot(back.x - template.x[k], back.y - template.y[k])
        turned = np.abs(np.angle(np.exp(1j * (back.direction - template.direction[k]))))
        assert ((apart <= step) & (turned <= np.pi / size.angles + 1e-6)).any()
    assert back.extractor is Extractor.FOREIGN


def test_a_print_beyond_the_reach_of_compact_minutiae_is_moved() -> None:
    template = made_template(60, seed=2, side=1000)
    card = card_of(template, CardSize.COMPACT)
    assert 10 < len(card.minutiae) < 60
    within = (np.abs(template.x - np.median(template.x)) < 240) & (
        np.abs(template.y - np.median(template.y)) < 240
    )
    assert len(card.minutiae) >= within.sum()


@given(records())
def test_every_record_gives_templates_or_is_refused(record: MinutiaeRecord) -> None:
    for view in record.views:
        try:
            template = template_of(view, record.format)
        except CaptureError:
            continue
        FingerprintTemplate.from_bytes(template.to_bytes())


def new_mindtct() -> nbis.NbisExtractor:
    return nbis.new_nbis_extractor(
        nbis.NbisExtractorSettings(
            min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
        )
    )


def test_another_makers_minutiae_lie_where_ours_do(development_data: Path) -> None:
    """The conventions agree, and a record is scaled by its resolution: these prints have 569 ppi."""
    mindtct = new_mindtct()
    path = development_data / "fingerprint" / "fvc2002_db2_b" / "101_1.png"
    ours = FingerprintExtractor().extract(read_print(path, 569)).template
    assert ours is not None
    view = mindtct_view(mindtct, path, 569)
    theirs = template_of(read_iso_2005(MinutiaeRecord(ISO_2005, (view,)).to_bytes()).views[0], ISO_2005)
    assert (theirs.width, theirs.height) == (ours.width, ours.height)
    apart = np.hypot(theirs.x[:, None] - ours.x, theirs.y[:, None] - ours.y)
    mine, other = np.nonzero(apart < 6)
    assert len(mine) > 15
    turned = np.angle(np.exp(1j * (theirs.direction[mine] - ours.direction[other])))
    assert np.median(np.abs(turned)) < np.radians(12)
    unscaled = replace(view, image=view.image._replace(x_resolution=197, y_resolution=197))
    wrong = template_of(unscaled, ISO_2005)
    right_score, wrong_score = (similarity(cylinders(ours), cylinders(one)) for one in (theirs, wrong))
    assert right_score > 1.3 * wrong_score


def test_another_makers_minutiae_are_compared_well(development_data: Path) -> None:
    """FVC2002 DB1-4 B by the FVC protocol, through ISO 19794-2:2005 records: a mean EER of 2.3 % at most."""
    mindtct, through = new_mindtct(), through_record(ISO_2005)
    folders = [development_data / "fingerprint" / name for name in SETS["fvc2002"]]
    rates = []
    for one in print_sets(folders, list(SETS["fvc2002"].values())):
        templates = [
            through(mindtct_view(mindtct, i.path, SETS["fvc2002"][one.name])) for i in one.impressions
        ]
        rates.append(error_rates(templates, np.array([i.finger for i in one.impressions]))["eer"])
    assert np.mean(rates) <= 0.023
