"""The native template: what is written is read again, and nothing else is read."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.errors import TemplateRefused
from capture.fingerprint.template import MAX_MINUTIAE, Extractor, FingerprintTemplate
from capture.sample import FingerPosition


def template(n: int, seed: int, width: int, height: int, position: int, quality: int) -> FingerprintTemplate:
    rng = np.random.default_rng(seed)
    return FingerprintTemplate(
        x=rng.integers(0, width, n).astype(np.float32),
        y=rng.integers(0, height, n).astype(np.float32),
        direction=rng.uniform(0, 2 * np.pi - 1e-3, n).astype(np.float32),
        ending=rng.integers(0, 2, n).astype(np.bool_),
        reliability=np.sort(rng.uniform(0, 1, n)).astype(np.float32)[::-1].copy(),
        width=width,
        height=height,
        position=FingerPosition(position),
        quality=quality,
    )


TEMPLATES = st.builds(
    template,
    n=st.integers(0, MAX_MINUTIAE),
    seed=st.integers(0, 1 << 30),
    width=st.integers(1, 2048),
    height=st.integers(1, 2048),
    position=st.sampled_from([int(position) for position in FingerPosition]),
    quality=st.integers(0, 100),
)


def sealed(data: bytes) -> bytes:
    """The same bytes with a right checksum."""
    return data[:12] + struct.pack(">I", zlib.crc32(data[:12] + data[16:])) + data[16:]


@settings(derandomize=True, deadline=None)
@given(TEMPLATES)
def test_what_is_written_is_read(original: FingerprintTemplate) -> None:
    data = original.to_bytes()
    read = FingerprintTemplate.from_bytes(data)
    assert len(data) == 16 + 5 * len(original) <= 511
    assert np.array_equal(read.x, original.x)
    assert np.array_equal(read.y, original.y)
    assert np.array_equal(read.ending, original.ending)
    turn = np.abs((read.direction - original.direction + np.pi) % (2 * np.pi) - np.pi)
    assert (turn <= np.pi / 1024 + 1e-4).all()
    assert ((read.direction >= 0) & (read.direction < 2 * np.pi)).all()
    assert (np.abs(read.reliability - original.reliability) <= 0.5 / 127 + 1e-6).all()
    assert (np.diff(read.reliability) <= 0).all()
    assert (read.width, read.height, read.position, read.quality, read.extractor) == (
        original.width,
        original.height,
        original.position,
        original.quality,
        Extractor.LEADER_1,
    )
    assert read.to_bytes() == data


def test_a_known_template_has_known_bytes() -> None:
    one = FingerprintTemplate(
        x=np.array([3], dtype=np.float32),
        y=np.array([5], dtype=np.float32),
        direction=np.array([np.pi / 2], dtype=np.float32),
        ending=np.array([True]),
        reliability=np.array([1], dtype=np.float32),
        width=300,
        height=400,
        position=FingerPosition.RIGHT_THUMB,
        quality=80,
    )
    body = (3 << 29 | 5 << 18 | 256 << 8 | 1 << 7 | 127).to_bytes(5, "big")
    head = b"RF\x01\x01\x01\x50" + struct.pack(">HHBB", 299, 399, 1, 0)
    assert one.to_bytes() == head + struct.pack(">I", zlib.crc32(head + body)) + body


def test_arrays_are_read_only() -> None:
    read = FingerprintTemplate.from_bytes(template(5, 1, 300, 400, 2, 50).to_bytes())
    for column in (read.x, read.y, read.direction, read.ending, read.reliability):
        assert not column.flags.writeable


@settings(derandomize=True, deadline=None)
@given(TEMPLATES, st.data())
def test_any_changed_bit_is_noticed(original: FingerprintTemplate, data: st.DataObject) -> None:
    good = original.to_bytes()
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TemplateRefused):
        FingerprintTemplate.from_bytes(bytes(bad))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"XX"),
        (2, b"\x02"),
        (3, b"\x00"),
        (3, b"\x09"),
        (4, b"\x0b"),
        (5, b"\x65"),
        (6, b"\x08\x00"),
        (8, b"\xff\xff"),
        (10, b"\x06"),
        (10, b"\x04"),
        (11, b"\x01"),
        (16, b"\xff\xff\xff\xff\xff"),
    ],
)
def test_a_wrong_field_is_refused_even_under_a_right_checksum(offset: int, value: bytes) -> None:
    good = template(5, 1, 300, 400, 2, 50).to_bytes()
    bad = good[:offset] + value + good[offset + len(value) :]
    with pytest.raises(TemplateRefused):
        FingerprintTemplate.from_bytes(sealed(bad))


def test_too_many_minutiae_are_refused() -> None:
    head = b"RF\x01\x01\x00\x00" + struct.pack(">HHBB", 299, 399, 100, 0) + bytes(4)
    with pytest.raises(TemplateRefused):
        FingerprintTemplate.from_bytes(sealed(head + bytes(500)))


def test_truncated_or_longer_bytes_are_refused() -> None:
    good = template(12, 1, 300, 400, 2, 50).to_bytes()
    for size in range(len(good)):
        with pytest.raises(TemplateRefused):
            FingerprintTemplate.from_bytes(good[:size])
    with pytest.raises(TemplateRefused):
        FingerprintTemplate.from_bytes(good + b"\x00")


def test_values_out_of_range_are_faults_of_the_program() -> None:
    good = template(3, 1, 300, 400, 2, 50)
    with pytest.raises(ValueError, match="quality"):
        replace(good, quality=101)
    for side in (0, 2049):
        with pytest.raises(ValueError, match="pixels a side"):
            replace(good, width=side)
    with pytest.raises(TypeError):
        replace(good, x=good.x.astype(np.float64))
    for wrong in (-1.0, 300.0, np.nan):
        with pytest.raises(ValueError, match="outside"):
            replace(good, x=np.array([0, 1, wrong], dtype=np.float32))
    with pytest.raises(ValueError, match="outside"):
        replace(good, direction=np.array([0, 1, 7], dtype=np.float32))
