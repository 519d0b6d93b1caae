"""Image records: the conformance samples, round trips, what is refused, and records sent as images."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wsq
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from capture.decode import DecodeLimits, decode_finger_image, decode_image
from capture.errors import ImageProblem, ImageRefused, RecordRefused
from capture.formats.face_image import (
    FaceImage,
    FaceImage2005,
    FaceRecord,
    FaceRecord2005,
    read_face_images,
)
from capture.formats.finger_image import (
    Compression,
    FingerImageRecord2005,
    FingerImageRecord2011,
    FingerRepresentation2011,
    FingerView2005,
    Grid,
    ScaleUnit,
    read_finger_images,
)
from capture.formats.iris_image import (
    Eye2005,
    IrisImage2005,
    IrisRecord2005,
    IrisRecord2011,
    IrisRepresentation2011,
    Layout2005,
    read_iris_images,
)
from capture.formats.representation import Capture, Certification, QualityBlock
from capture.sample import FingerPosition

assert wsq.__name__ == "wsq"  # importing it teaches Pillow to write WSQ

READERS = {b"FIR": read_finger_images, b"IIR": read_iris_images, b"FAC": read_face_images}
POSITIONS = {
    "Right_Thumb": 1,
    "Right_Index": 2,
    "Right_Middle": 3,
    "Right_Ring": 4,
    "Right_Little": 5,
    "Left_Thumb": 6,
    "Left_Index": 7,
    "Left_Middle": 8,
    "Left_Ring": 9,
    "Left_Little": 10,
    "Finger_UKNOWN": 0,
}

numbers8, numbers16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
captures = st.builds(
    Capture,
    time=st.binary(min_size=9, max_size=9),
    technology=numbers8,
    vendor=numbers16,
    device=numbers16,
    qualities=st.lists(st.builds(QualityBlock, numbers8, numbers16, numbers16), max_size=3).map(tuple),
)
pairs = st.tuples(numbers16, numbers16)


def grids(compressions: Sequence[Compression]) -> st.SearchStrategy[Grid]:
    return st.builds(
        Grid, pairs, pairs, st.sampled_from(compressions), st.sampled_from(ScaleUnit), st.integers(1, 16)
    )


coded = [one for one in Compression if one not in (Compression.NONE, Compression.PACKED)]
views = st.fixed_dictionaries(
    {
        "position": numbers8,
        "width": st.integers(1, 0xFFFF),
        "height": st.integers(1, 0xFFFF),
        "data": st.binary(min_size=1, max_size=40),
        "number": numbers8,
        "impression": numbers8,
    }
)
old_extras = st.fixed_dictionaries({"quality": numbers8, "views": numbers8, "reserved": numbers8})
new_extras = st.fixed_dictionaries({"capture": captures, "extended": st.binary(max_size=70)})
certifications = st.lists(st.builds(Certification, numbers16, numbers8), max_size=3).map(tuple)


def ridges() -> NDArray[np.uint8]:
    y, x = np.mgrid[:120, :100]
    image: NDArray[np.uint8] = (128 + 100 * np.sin(2 * np.pi * np.hypot(x - 50, y - 60) / 9)).astype(np.uint8)
    return image


def encoded(image: NDArray[np.uint8], compression: Compression) -> bytes:
    if compression is Compression.NONE:
        return image.tobytes()
    stream = io.BytesIO()
    name = {Compression.WSQ: "WSQ", Compression.JPEG: "JPEG", Compression.PNG: "PNG"}.get(
        compression, "JPEG2000"
    )
    Image.fromarray(image).save(stream, name)
    return stream.getvalue()


def record(compression: Compression = Compression.NONE, **changes: object) -> FingerImageRecord2011:
    image = FingerRepresentation2011(
        position=2,
        width=100,
        height=120,
        grid=Grid((500, 500), (500, 500), compression),
        data=encoded(ridges(), compression),
    )
    return FingerImageRecord2011(images=(replace(image, **changes),))  # type: ignore[arg-type]


def problem(data: bytes, **declared: object) -> ImageProblem:
    with pytest.raises(ImageRefused) as caught:
        decode_image(data, **declared)  # type: ignore[arg-type]
    return caught.value.problem


# --- the conformance samples


def test_every_conformance_record_is_read_and_written_back(development_data: Path) -> None:
    folder = development_data / "conformance"
    counts = dict.fromkeys(READERS, 0)
    for path in sorted([*folder.rglob("*.iso"), *folder.rglob("*.raw")]):
        data = path.read_bytes()
        if data[:3] in READERS:
            assert READERS[data[:3]](data).to_bytes() == data, path
            counts[data[:3]] += 1
    assert counts == {b"FIR": 65, b"IIR": 13, b"FAC": 8}


def test_every_finger_record_becomes_a_sample(development_data: Path) -> None:
    seen = set()
    for path in sorted((development_data / "conformance" / "iso19794").rglob("*.iso")):
        data = path.read_bytes()
        if not data.startswith(b"FIR"):
            continue
        (image,) = read_finger_images(data).images
        sample = decode_image(data)
        name = path.name.removeprefix("0001").removesuffix(".iso").removesuffix("wsq").rstrip("._")
        assert sample.position == POSITIONS[name], path
        assert sample.ppi == 500
        assert sample.image.shape == (image.height, image.width)
        # An image of a finger: neither blank nor noise.
        assert 20 < sample.image.std() < 110, path
        seen.add((image.grid.compression, sample.position))
    assert len(seen) == 10 * 3 + 2


def test_trailing_bytes_of_registration_records_are_kept(development_data: Path) -> None:
    for path in sorted(
        (development_data / "conformance" / "iso19794" / "Default" / "Registration").iterdir()
    ):
        data = path.read_bytes()
        if data.startswith(b"FIR"):
            (image,) = read_finger_images(data).images
            assert isinstance(image, FingerRepresentation2011)
            assert len(image.extended) in (60, 61)
            assert b"This is of Finger" in image.extended
            assert image.certifications == (Certification(64, 2), Certification(64, 2))


def test_paired_images_are_those_in_the_records(development_data: Path) -> None:
    folder = development_data / "conformance" / "paired"
    pairs = {
        picture: next(
            path
            for name in (picture.stem, f"{picture.stem}_jp2000")
            if (path := folder / f"{name}.iso").exists()
        )
        for picture in sorted(folder.glob("*.jp2"))
    }
    assert len(pairs) == 6
    for picture, path in pairs.items():
        data = path.read_bytes()
        read = READERS[data[:3]](data)
        assert not isinstance(read, IrisRecord2005)
        assert [image.data for image in read.images] == [picture.read_bytes()]


def test_an_encrypted_record_is_refused(development_data: Path) -> None:
    data = (development_data / "conformance" / "paired" / "info_encyrpted.iso").read_bytes()
    for read in READERS.values():
        with pytest.raises(RecordRefused):
            read(data)
    assert problem(data) is ImageProblem.UNKNOWN_FORMAT


def test_time_and_quality_of_a_capture(development_data: Path) -> None:
    path = development_data / "conformance" / "paired" / "info_left_index_registration_jp2000.iso"
    (image,) = read_finger_images(path.read_bytes()).images
    assert isinstance(image, FingerRepresentation2011)
    assert image.capture.qualities == (QualityBlock(57, 64, 15),)
    assert str(image.capture.captured_at) == "2022-12-28 12:30:15.976000+00:00"
    assert Capture().captured_at is None


# --- round trips


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    grids([c for c in coded if c is not Compression.JPEG_2000_LOSSLESS]),
    st.lists(st.tuples(views, old_extras), min_size=1, max_size=3),
    numbers16,
    numbers16,
)
def test_records_of_2005_come_back(
    grid: Grid, images: list[tuple[dict[str, int], dict[str, int]]], device: int, level: int
) -> None:
    made = FingerImageRecord2005(
        images=tuple(FingerView2005(grid=grid, **a, **b) for a, b in images),  # type: ignore[arg-type]
        device=device,
        acquisition_level=level,
    )
    data = made.to_bytes()
    assert read_finger_images(data) == made
    for cut in range(0, len(data), 7):
        with pytest.raises(RecordRefused):
            read_finger_images(data[:cut])
    with pytest.raises(RecordRefused):
        read_finger_images(data + b"\0")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(grids(coded), views, new_extras, certifications), min_size=1, max_size=3),
    st.booleans(),
    numbers8,
)
def test_records_of_2011_come_back(
    images: list[tuple[Grid, dict[str, int], dict[str, Capture], tuple[Certification, ...]]],
    certified: bool,
    positions: int,
) -> None:
    made = FingerImageRecord2011(
        images=tuple(
            FingerRepresentation2011(grid=grid, certifications=c if certified else (), **a, **b)  # type: ignore[arg-type]
            for grid, a, b, c in images
        ),
        certified=certified,
        positions=positions,
    )
    data = made.to_bytes()
    assert read_finger_images(data) == made
    for cut in range(0, len(data), 7):
        with pytest.raises(RecordRefused):
            read_finger_images(data[:cut])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(captures, st.binary(max_size=40), st.lists(st.binary(min_size=8, max_size=8), max_size=3), st.data())
def test_iris_and_face_records_come_back(
    capture: Capture, image: bytes, landmarks: list[bytes], data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(Layout2005))
    geometry = data.draw(st.binary(min_size=51, max_size=51))[: 51 if layout is Layout2005.IREX else 4]
    old = IrisImage2005(
        data=image, number=data.draw(numbers16), quality=data.draw(numbers8), geometry=geometry
    )
    eyes = (Eye2005(eye=2, images=(old, old)), Eye2005(eye=1, images=()))
    kind = 3 if layout is Layout2005.IREX else 0
    first = IrisRecord2005(eyes=eyes, width=640, height=480, format=2, layout=layout, kind=kind)
    assert read_iris_images(first.to_bytes()) == first
    new = IrisRepresentation2011(eye=1, width=640, height=480, data=image, format=10, capture=capture)
    second = IrisRecord2011(images=(new, replace(new, eye=2)), eyes=2)
    assert read_iris_images(second.to_bytes()) == second
    face = FaceImage(width=480, height=640, data=image, format=1, capture=capture, landmarks=tuple(landmarks))
    third = FaceRecord(images=(face, replace(face, extended=b"shape")), temporal=data.draw(numbers16))
    assert read_face_images(third.to_bytes()) == third
    passport = FaceImage2005(
        width=413, height=531, data=image, format=0, points=tuple(landmarks), quality=data.draw(numbers16)
    )
    fourth = FaceRecord2005(images=(passport, replace(passport, subject=bytes(range(14)))))
    assert read_face_images(fourth.to_bytes()) == fourth
    # By its layout: 14 bytes of header, 4 + 2 + 14 + 8 for each point + 12 of the image's.
    assert len(fourth.to_bytes()) == 14 + 2 * (32 + 8 * len(landmarks) + len(image))
    for written, read in (
        (first, read_iris_images),
        (second, read_iris_images),
        (third, read_face_images),
        (fourth, read_face_images),
    ):
        whole = written.to_bytes()
        for cut in range(0, len(whole), 7):
            with pytest.raises(RecordRefused):
                read(whole[:cut])


def test_what_an_edition_cannot_say_is_refused() -> None:
    (image,) = record().images
    old = FingerView2005(position=2, width=100, height=120, grid=image.grid, data=image.data)
    lossless = replace(image.grid, compression=Compression.JPEG_2000_LOSSLESS)
    for faulty in (
        FingerImageRecord2005(images=()),
        FingerImageRecord2005(images=(replace(old, grid=lossless),)),
        FingerImageRecord2005(images=(old, replace(old, grid=replace(old.grid, resolution=(1000, 1000))))),
        FingerImageRecord2005(images=(replace(old, position=256),)),
        FingerImageRecord2005(images=(replace(old, data=b"short"),)),
        FingerImageRecord2011(images=()),
        FingerImageRecord2011(images=(replace(image, certifications=(Certification(1, 1),)),)),
        FingerImageRecord2011(images=(replace(image, width=0),)),
        FingerImageRecord2011(images=(replace(image, capture=Capture(time=b"now")),)),
        FingerImageRecord2011(images=(replace(image, grid=replace(image.grid, bit_depth=0)),)),
        IrisRecord2011(
            images=(IrisRepresentation2011(eye=1, width=1, height=1, data=b"", format=2, geometry=b""),)
        ),
        IrisRecord2005(eyes=(), width=1, height=1, format=2, unit=b""),
        IrisRecord2005(
            eyes=(Eye2005(eye=1, images=(IrisImage2005(data=b"", geometry=b""),)),),
            width=1,
            height=1,
            format=2,
        ),
        FaceRecord(images=(FaceImage(width=1, height=1, data=b"", format=0, subject=b""),)),
    ):
        with pytest.raises(RecordRefused):
            faulty.to_bytes()


def test_codes_nobody_knows_are_refused() -> None:
    data = record().to_bytes()
    grid_at = 16 + 4 + 9 + 5 + 1 + 2
    for at, value, says in (
        (4, 0x39, "version"),
        (14, 2, "flag"),
        (grid_at, 3, "scale"),
        (grid_at + 9, 17, "bits"),
        (grid_at + 10, 7, "compression"),
    ):
        faulty = data[:at] + bytes([value]) + data[at + 1 :]
        with pytest.raises(RecordRefused, match=says):
            read_finger_images(faulty)


# --- records as images


@pytest.mark.parametrize("compression", [c for c in Compression if c is not Compression.PACKED])
def test_a_record_is_decoded_like_its_image(compression: Compression) -> None:
    sample = decode_image(record(compression).to_bytes())
    assert sample.position is FingerPosition.RIGHT_INDEX
    assert sample.ppi == 500
    assert sample.image.shape == (120, 100)
    difference = np.abs(sample.image.astype(int) - ridges())
    assert difference.mean() < (6 if compression in (Compression.WSQ, Compression.JPEG) else 1e-9)


@pytest.mark.parametrize("depth", range(1, 17))
def test_bare_pixels_of_every_depth(depth: int) -> None:
    white = (1 << depth) - 1
    values = np.random.default_rng(depth).integers(0, white + 1, (120, 100))
    values[0, :2] = 0, white
    grey = (values * 255 + white // 2) // white
    bits = (values.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
    grid = Grid((500, 500), (500, 500), Compression.PACKED, bit_depth=depth)
    for compression, data in (
        (Compression.PACKED, np.packbits(bits.astype(np.uint8)).tobytes()),
        (Compression.NONE, values.astype(np.uint8 if depth <= 8 else ">u2").tobytes()),
    ):
        bare = record(grid=replace(grid, compression=compression), data=data)
        assert np.array_equal(decode_image(bare.to_bytes()).image, grey)


def test_declared_and_recorded_position_agree_or_one_is_unknown() -> None:
    data = record().to_bytes()
    assert decode_image(data, position=FingerPosition.RIGHT_INDEX).position is FingerPosition.RIGHT_INDEX
    assert problem(data, position=FingerPosition.LEFT_INDEX) is ImageProblem.POSITION_CONFLICT
    unknown = record(position=0).to_bytes()
    assert decode_image(unknown, position=FingerPosition.LEFT_INDEX).position is FingerPosition.LEFT_INDEX
    assert decode_image(unknown).position is FingerPosition.UNKNOWN


def test_slaps_palms_and_several_fingers_are_refused() -> None:
    for position in (13, 14, 15, 21, 40):
        assert problem(record(position=position).to_bytes()) is ImageProblem.SEVERAL_FRAMES
    several = FingerImageRecord2011(images=record().images * 2)
    assert problem(several.to_bytes()) is ImageProblem.SEVERAL_FRAMES
    assert [decode_finger_image(image).image.shape for image in several.images] == [(120, 100)] * 2


def test_resolution_of_a_record() -> None:
    centimetres = Grid((197, 197), (197, 197), Compression.NONE, ScaleUnit.PIXELS_PER_CM)
    data = record(grid=centimetres).to_bytes()
    assert decode_image(data).ppi == pytest.approx(500, abs=1)
    assert decode_image(data, ppi=500).ppi == 500
    assert problem(data, ppi=1000) is ImageProblem.RESOLUTION_CONFLICT
    oblong = Grid((500, 500), (500, 400), Compression.NONE)
    assert problem(record(grid=oblong).to_bytes()) is ImageProblem.RESOLUTION_CONFLICT
    silent = record(grid=Grid((0, 0), (0, 0), Compression.NONE)).to_bytes()
    assert problem(silent) is ImageProblem.RESOLUTION_UNKNOWN
    assert decode_image(silent, ppi=500).ppi == 500
    absurd = record(grid=Grid((9000, 9000), (9000, 9000), Compression.NONE)).to_bytes()
    assert problem(absurd) is ImageProblem.RESOLUTION_OUT_OF_RANGE


def test_headers_that_lie_about_the_image_are_refused() -> None:
    for lie in (
        record(Compression.PNG, width=101),
        record(Compression.PNG, height=119),
        record(Compression.PNG, grid=Grid((500, 500), (500, 500), Compression.WSQ)),
        record(Compression.WSQ, grid=Grid((500, 500), (500, 500), Compression.JPEG_2000)),
        record(Compression.PNG, data=record().to_bytes()),
    ):
        with pytest.raises(RecordRefused):
            decode_finger_image(lie.images[0])
        assert problem(lie.to_bytes()) is ImageProblem.DAMAGED


def test_limits_hold_for_records_before_anything_is_decoded() -> None:
    data = record().to_bytes()
    assert problem(data, limits=DecodeLimits(max_bytes=len(data) - 1)) is ImageProblem.TOO_MANY_BYTES
    assert problem(data, limits=DecodeLimits(max_pixels=11_999)) is ImageProblem.TOO_MANY_PIXELS
    assert problem(data, limits=DecodeLimits(min_side=101)) is ImageProblem.TOO_SMALL
    assert problem(data, limits=DecodeLimits(max_inches=0.2)) is ImageProblem.TOO_MANY_PIXELS
    bomb = record(Compression.PNG, width=60_000, height=60_000).to_bytes()
    assert problem(bomb) is ImageProblem.TOO_MANY_PIXELS
