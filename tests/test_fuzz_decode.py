"""Hostile bytes: whatever is sent, a sample within the limits comes out, or a refusal; nothing else."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
import wsq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from capture.decode import DecodeLimits, decode_face_image, decode_image, decode_iris_image
from capture.errors import ImageRefused, TemplateRefused
from capture.fingerprint.template import FingerprintTemplate
from capture.formats.face_image import FaceImage, FaceRecord
from capture.formats.iris_image import (
    Eye2005,
    IrisImage2005,
    IrisRecord2005,
    IrisRecord2011,
    IrisRepresentation2011,
)
from capture.pixels import PixelLimits
from capture.sample import EyePosition, FingerPosition

assert wsq.__name__ == "wsq"  # importing it teaches Pillow to write WSQ

FORMATS = ("png", "jpeg", "bmp", "tiff", "tiff_lzw", "tiff_deflate", "wsq", "jp2", "j2k")
LIMITS = DecodeLimits(max_bytes=1 << 20, max_pixels=250_000)
OTHER_LIMITS = PixelLimits(max_bytes=1 << 20, max_pixels=250_000, min_side=48, max_side=2000)
MEMORY = 400 * 1024  # kB that a decoder may take on top, whatever a header claims
FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=500,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def valid_files() -> dict[str, bytes]:
    y, x = np.mgrid[:96, :80]
    image = (128 + 100 * np.sin(2 * np.pi * np.hypot(x - 40, y - 50) / 9)).astype(np.uint8)
    picture = Image.fromarray(image)
    files = {}
    for name in FORMATS:
        stream = io.BytesIO()
        if name == "wsq":
            picture.save(stream, "WSQ")
        elif name in ("jp2", "j2k"):
            picture.save(stream, "JPEG2000", no_jp2=name == "j2k")
        elif name.startswith("tiff_"):
            compression = {"tiff_lzw": "tiff_lzw", "tiff_deflate": "tiff_adobe_deflate"}[name]
            picture.save(stream, "TIFF", compression=compression, dpi=(500, 500))
        else:
            picture.save(stream, name.upper(), dpi=(500, 500))
        files[name] = stream.getvalue()
    return files


FILES = valid_files()

# One change: where (a share of the file, mostly its head), how, with which bytes.
CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 60), st.integers(0, 700), st.integers(0, 1 << 16)),
        st.sampled_from(["flip", "set", "insert", "delete", "size16", "size32", "copy"]),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)
SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def changed(data: bytes, changes: list[tuple[int, str, bytes]], cut: int | None) -> bytes:
    out = bytearray(data)
    for place, how, new in changes:
        at = place % max(1, len(out))
        size = SIZES[new[0] % len(SIZES)]
        if how == "flip" and out:
            out[at] ^= 1 << (new[0] % 8)
        elif how == "set":
            out[at : at + len(new)] = new
        elif how == "insert":
            out[at:at] = new * 3
        elif how == "delete":
            del out[at : at + len(new)]
        elif how == "size16":
            out[at : at + 2] = struct.pack(">H" if new[0] & 1 else "<H", size & 0xFFFF)
        elif how == "size32":
            out[at : at + 4] = struct.pack(">I" if new[0] & 1 else "<I", size)
        elif how == "copy":
            out[at:at] = out[at : at + 16 * len(new)]
    return bytes(out if cut is None else out[: cut % max(1, len(out))])


def check(data: bytes, ppi: float | None) -> None:
    try:
        sample = decode_image(data, ppi=ppi, limits=LIMITS)
    except ImageRefused:
        return
    height, width = sample.image.shape
    assert sample.image.dtype == np.uint8
    assert height * width <= LIMITS.max_pixels
    assert min(height, width) >= LIMITS.min_side
    assert LIMITS.min_ppi <= sample.ppi <= LIMITS.max_ppi


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files(name: str) -> None:
    seed = FILES[name]
    check(seed, 500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @FUZZ
    @given(CHANGES, st.one_of(st.none(), st.none(), st.integers(0, 1 << 16)), st.sampled_from([None, 500.0]))
    def run(changes: list[tuple[int, str, bytes]], cut: int | None, ppi: float | None) -> None:
        check(changed(seed, changes, cut), ppi)

    run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def records() -> dict[str, bytes]:
    png, jp2 = FILES["png"], FILES["jp2"]
    bare = IrisImage2005(data=bytes(96 * 80))
    eye = IrisRepresentation2011(eye=2, width=80, height=96, data=png, format=14)
    return {
        "iris_2005": IrisRecord2005(
            eyes=(Eye2005(eye=1, images=(bare,)),), width=80, height=96, format=2
        ).to_bytes(),
        "iris_2011": IrisRecord2011(images=(eye,)).to_bytes(),
        "face": FaceRecord(images=(FaceImage(width=80, height=96, data=jp2, format=1),)).to_bytes(),
    }


RECORDS = records()


def check_eye_and_portrait(data: bytes, eye: EyePosition) -> bool:
    """Whether either decoder took the bytes; neither may raise anything but its refusal."""
    taken = False
    try:
        iris = decode_iris_image(data, eye=eye, limits=OTHER_LIMITS)
        assert iris.image.dtype == np.uint8
        assert iris.image.ndim == 2
        assert iris.image.size <= OTHER_LIMITS.max_pixels
        assert eye in (EyePosition.UNKNOWN, iris.eye)
        taken = True
    except ImageRefused:
        pass
    try:
        face = decode_face_image(data, limits=OTHER_LIMITS)
    except ImageRefused:
        return taken
    assert face.image.dtype == np.uint8
    assert face.image.shape[2:] == (3,)
    assert face.image.size <= 3 * OTHER_LIMITS.max_pixels
    assert OTHER_LIMITS.min_side <= min(face.image.shape[:2])
    return True


@pytest.mark.parametrize("name", [*FORMATS, *RECORDS])
def test_mutated_eyes_and_portraits(name: str) -> None:
    seed = (FILES | RECORDS)[name]
    assert check_eye_and_portrait(seed, EyePosition.UNKNOWN) == (name != "wsq")

    @settings(FUZZ, max_examples=150)
    @given(CHANGES, st.one_of(st.none(), st.none(), st.integers(0, 1 << 16)), st.sampled_from(EyePosition))
    def run(changes: list[tuple[int, str, bytes]], cut: int | None, eye: EyePosition) -> None:
        check_eye_and_portrait(changed(seed, changes, cut), eye)

    run()


@FUZZ
@given(
    st.sampled_from([FILES[name][:size] for name in FORMATS for size in (2, 4, 12, 30, 80)]),
    st.binary(max_size=400),
)
def test_noise_behind_a_valid_beginning(beginning: bytes, noise: bytes) -> None:
    check(beginning + noise, 500)


@FUZZ
@given(st.binary(max_size=100), st.floats(allow_nan=True, allow_infinity=True))
def test_noise_and_any_resolution(noise: bytes, ppi: float) -> None:
    check(noise, ppi)


def template_bytes() -> bytes:
    rng = np.random.default_rng(3)
    n = 40
    return FingerprintTemplate(
        x=rng.integers(0, 400, n).astype(np.float32),
        y=rng.integers(0, 300, n).astype(np.float32),
        direction=rng.uniform(0, 6, n).astype(np.float32),
        ending=rng.integers(0, 2, n).astype(np.bool_),
        reliability=np.sort(rng.uniform(0, 1, n)).astype(np.float32)[::-1].copy(),
        width=400,
        height=300,
        position=FingerPosition.RIGHT_INDEX,
        quality=70,
    ).to_bytes()


@FUZZ
@given(CHANGES, st.one_of(st.none(), st.integers(0, 300)), st.booleans())
def test_mutated_templates(changes: list[tuple[int, str, bytes]], cut: int | None, repair: bool) -> None:
    data = changed(template_bytes(), changes, cut)
    if repair and len(data) >= 16:
        data = data[:12] + struct.pack(">I", zlib.crc32(data[:12] + data[16:])) + data[16:]
    try:
        template = FingerprintTemplate.from_bytes(data)
    except TemplateRefused:
        return
    assert template.to_bytes() == data


@FUZZ
@given(st.binary(max_size=600))
def test_noise_is_no_template(noise: bytes) -> None:
    with pytest.raises(TemplateRefused):
        FingerprintTemplate.from_bytes(noise)
