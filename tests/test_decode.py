"""Decoding: every format, every kind of pixel, every limit, every source of resolution."""

import io
import struct
import zlib

import numpy as np
import pytest
import wsq
from numpy.typing import NDArray
from PIL import Image

from capture.decode import DecodeLimits, decode_image
from capture.errors import ImageProblem, ImageRefused
from capture.sample import FingerPosition
from capture.wsq import WsqDamaged, read_wsq, wsq_bands, wsq_pixels

assert wsq.__name__ == "wsq"  # importing it teaches Pillow to write WSQ

LOSSLESS = ("png", "bmp", "tiff", "jp2", "j2k")
FORMATS = (*LOSSLESS, "jpeg", "wsq")


def ridges(height: int = 200, width: int = 180) -> NDArray[np.uint8]:
    """A whorl of ridges nine pixels apart."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(x - width / 2, 0.8 * (y - height / 2))
    turn = np.arctan2(y - height / 2, x - width / 2)
    image: NDArray[np.uint8] = (128 + 100 * np.sin(2 * np.pi * radius / 9 + turn)).astype(np.uint8)
    return image


def encoded(image: Image.Image | NDArray[np.uint8], name: str, **options: object) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    if name == "wsq":
        picture.save(stream, "WSQ")
    elif name in ("jp2", "j2k"):
        picture.save(stream, "JPEG2000", irreversible=False, no_jp2=name == "j2k", **options)
    else:
        picture.save(stream, name.upper(), **options)
    return stream.getvalue()


def problem(data: bytes, ppi: float | None = 500, limits: DecodeLimits | None = None) -> ImageProblem:
    with pytest.raises(ImageRefused) as caught:
        decode_image(data, ppi=ppi, limits=limits or DecodeLimits())
    assert str(caught.value)
    return caught.value.problem


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def with_resolution_box(jp2: bytes, per_metre: int) -> bytes:
    capture_box = struct.pack(">I4sHHHHbb", 18, b"resc", per_metre, 1, per_metre, 1, 0, 0)
    box = struct.pack(">I4s", 8 + len(capture_box), b"res ") + capture_box
    at = jp2.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", jp2, at)
    return (
        jp2[:at] + struct.pack(">I", length + len(box)) + jp2[at + 4 : at + length] + box + jp2[at + length :]
    )


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    image = ridges()
    sample = decode_image(encoded(image, name), ppi=500, position=FingerPosition.LEFT_RING)
    assert np.array_equal(sample.image, image)
    assert (sample.ppi, sample.position, sample.format) == (500, FingerPosition.LEFT_RING, name)
    assert not sample.image.flags.writeable


@pytest.mark.parametrize(("name", "tolerance"), [("jpeg", 6.0), ("wsq", 8.0)])
def test_lossy_formats_stay_close(name: str, tolerance: float) -> None:
    image = ridges()
    options = {"quality": 95} if name == "jpeg" else {}
    decoded = decode_image(encoded(image, name, **options), ppi=500).image.astype(float)
    assert np.abs(decoded - image).mean() < tolerance


@pytest.mark.parametrize(("height", "width"), [(200, 180), (201, 183), (211, 193), (97, 128), (100, 259)])
def test_wsq_agrees_with_the_reference_decoder_to_one_grey_level(height: int, width: int) -> None:
    data = encoded(ridges(height, width), "wsq")
    with Image.open(io.BytesIO(data)) as reference:
        expected = np.asarray(reference.convert("L")).astype(int)
    ours = wsq_pixels(read_wsq(data)).astype(int)
    assert ours.shape == (height, width)
    assert np.abs(ours - expected).max() <= 1
    assert np.mean(ours != expected) < 1e-3


def test_wsq_bands_tile_the_plane_once() -> None:
    for height, width in ((64, 64), (101, 99), (480, 503)):
        plane = np.zeros((height, width), dtype=int)
        bands = wsq_bands(width, height)
        for band in bands:
            plane[band.y : band.y + band.height, band.x : band.x + band.width] += 1
        assert len(bands) == 64
        assert (plane == 1).all()


def test_wsq_without_its_end_is_damaged() -> None:
    data = encoded(ridges(), "wsq")
    for cut in (0, 1, 2, 30, 200, len(data) // 2, len(data) - 2):
        with pytest.raises(WsqDamaged):
            wsq_pixels(read_wsq(data[:cut]))


def test_wsq_with_endless_segments_is_damaged() -> None:
    data = encoded(ridges(), "wsq")
    comment = b"\xff\xa8\x00\x06spam"
    assert wsq_pixels(read_wsq(data[:2] + comment * 40 + data[2:])).shape == (200, 180)
    with pytest.raises(WsqDamaged, match="segments"):
        read_wsq(data[:2] + comment * 64 + data[2:])
    table = b"\x00" + bytes(16)
    with pytest.raises(WsqDamaged, match="Huffman"):
        read_wsq(data[:2] + b"\xff\xa6" + struct.pack(">H", 2 + 2 * len(table)) + table * 2 + data[2:])


def test_colour_becomes_luma_and_transparency_white() -> None:
    grey = ridges()
    rgb = Image.merge("RGB", [Image.fromarray(grey)] * 3)
    assert np.array_equal(decode_image(encoded(rgb, "png"), ppi=500).image, grey)
    alpha = np.full(grey.shape, 255, dtype=np.uint8)
    alpha[:50] = 0
    for bands in ([grey, alpha], [grey, grey, grey, alpha]):
        picture = Image.merge("LA" if len(bands) == 2 else "RGBA", [Image.fromarray(b) for b in bands])
        decoded = decode_image(encoded(picture, "png"), ppi=500).image
        assert (decoded[:50] == 255).all()
        assert np.array_equal(decoded[50:], grey[50:])
    cmyk = rgb.convert("CMYK")
    assert np.abs(decode_image(encoded(cmyk, "tiff"), ppi=500).image.astype(int) - grey).max() <= 2


def test_sixteen_bits_become_eight() -> None:
    grey = ridges()
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    for name in ("png", "tiff", "jp2"):
        assert np.array_equal(decode_image(encoded(wide, name), ppi=500).image, grey), name


def test_one_bit_and_palette_images_are_read() -> None:
    grey = ridges()
    black_and_white = Image.fromarray(grey).point(lambda v: 255 * (v > 128)).convert("1")
    for name in ("png", "tiff", "bmp"):
        assert set(np.unique(decode_image(encoded(black_and_white, name), ppi=500).image)) == {0, 255}
    palette = Image.fromarray(grey).quantize(256)
    decoded = decode_image(encoded(palette, "png"), ppi=500).image
    assert np.abs(decoded.astype(int) - grey).max() <= 3


def test_float_pixels_are_refused() -> None:
    picture = Image.fromarray(ridges().astype(np.float32))
    assert problem(encoded(picture, "tiff")) is ImageProblem.UNKNOWN_FORMAT


def test_orientation_tags_are_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = ridges()
    assert decode_image(encoded(image, "jpeg", exif=exif, quality=95), ppi=500).image.shape == image.shape


def test_the_format_is_told_by_content() -> None:
    assert problem(b"") is ImageProblem.EMPTY
    assert problem(b"GIF89a" + bytes(100)) is ImageProblem.UNKNOWN_FORMAT
    assert problem(b"%PDF-1.7" + bytes(100)) is ImageProblem.UNKNOWN_FORMAT
    assert problem(b"\x89PNG\r\n\x1a\n") is ImageProblem.DAMAGED


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files_are_refused_wherever_they_end(name: str) -> None:
    image = ridges()
    image[100:] = np.random.default_rng(1).integers(0, 256, image[100:].shape, dtype=np.uint8)
    data = encoded(image, name)
    for share in (0.02, 0.2, 0.5, 0.8, 0.97):
        with pytest.raises(ImageRefused):
            decode_image(data[: int(share * len(data))], ppi=500)


@pytest.mark.parametrize("name", FORMATS)
def test_limits_hold_for_every_format(name: str) -> None:
    data = encoded(ridges(), name)
    assert problem(data, limits=DecodeLimits(max_bytes=len(data) - 1)) is ImageProblem.TOO_MANY_BYTES
    assert problem(data, limits=DecodeLimits(max_pixels=200 * 180 - 1)) is ImageProblem.TOO_MANY_PIXELS
    assert problem(data, limits=DecodeLimits(min_side=181)) is ImageProblem.TOO_SMALL
    assert problem(data, limits=DecodeLimits(max_inches=0.3)) is ImageProblem.TOO_MANY_PIXELS
    assert problem(data, limits=DecodeLimits(max_square_inches=0.14)) is ImageProblem.TOO_MANY_PIXELS
    exact = DecodeLimits(max_bytes=len(data), max_pixels=200 * 180, min_side=180, max_inches=0.4)
    assert decode_image(data, ppi=500, limits=exact).image.shape == (200, 180)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    # 60,000 x 60,000 grey pixels of nothing, in 30 kB.
    rows = zlib.compress(bytes(1 << 20), 9) * 2
    png = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert problem(png) is ImageProblem.TOO_MANY_PIXELS
    for name, size in (("bmp", "<ii"), ("j2k", ">II"), ("wsq", ">HH")):
        data = bytearray(encoded(ridges(), name))
        true = struct.pack(size, 180, 200) if name != "wsq" else struct.pack(size, 200, 180)
        at = data.index(true)
        data[at : at + len(true)] = struct.pack(size, 50_000, 50_000)
        refused = problem(bytes(data))
        assert refused is ImageProblem.TOO_MANY_PIXELS, name


def test_several_frames_are_refused() -> None:
    picture = Image.fromarray(ridges())
    stream = io.BytesIO()
    picture.save(stream, "TIFF", save_all=True, append_images=[picture])
    assert problem(stream.getvalue()) is ImageProblem.SEVERAL_FRAMES
    stream = io.BytesIO()
    picture.save(stream, "PNG", save_all=True, append_images=[Image.fromarray(255 - ridges())])
    assert problem(stream.getvalue()) is ImageProblem.SEVERAL_FRAMES


def files_of(ppi: float) -> dict[str, bytes]:
    image = ridges()
    files = {name: encoded(image, name, dpi=(ppi, ppi)) for name in ("png", "jpeg", "bmp", "tiff")}
    files["jp2"] = with_resolution_box(encoded(image, "jp2"), round(ppi / 0.0254))
    if ppi == 500:
        files["wsq"] = encoded(image, "wsq")
    return files


@pytest.mark.parametrize("ppi", [500, 569, 1000])
def test_embedded_resolution_is_read(ppi: float) -> None:
    for name, data in files_of(ppi).items():
        assert decode_image(data).ppi == pytest.approx(ppi, abs=0.6), name


def test_no_resolution_at_all_is_refused() -> None:
    for name in ("png", "jpeg", "tiff", "jp2", "j2k"):
        assert problem(encoded(ridges(), name), ppi=None) is ImageProblem.RESOLUTION_UNKNOWN, name


@pytest.mark.parametrize("default", [72, 96])
def test_encoder_defaults_say_nothing(default: float) -> None:
    for name, data in files_of(default).items():
        assert problem(data, ppi=None) is ImageProblem.RESOLUTION_UNKNOWN, name
        assert decode_image(data, ppi=508).ppi == 508, name


def test_declared_and_embedded_resolution_must_agree() -> None:
    data = encoded(ridges(), "png", dpi=(500, 500))
    assert decode_image(data, ppi=508).ppi == 508
    assert problem(data, ppi=569) is ImageProblem.RESOLUTION_CONFLICT
    assert decode_image(encoded(ridges(), "png", dpi=(150, 150)), ppi=500).ppi == 500
    assert decode_image(files_of(1000)["jp2"], ppi=500).ppi == 500
    assert problem(encoded(ridges(), "png", dpi=(500, 600)), ppi=None) is ImageProblem.RESOLUTION_CONFLICT


@pytest.mark.parametrize("absurd", [0.0, -500.0, 72.0, 10_000.0, float("nan"), float("inf")])
def test_an_absurd_resolution_is_refused(absurd: float) -> None:
    assert problem(encoded(ridges(), "png"), ppi=absurd) is ImageProblem.RESOLUTION_OUT_OF_RANGE
    assert problem(encoded(ridges(), "png", dpi=(150, 150)), ppi=None) is ImageProblem.RESOLUTION_OUT_OF_RANGE


def test_a_flipped_bit_in_a_png_is_noticed() -> None:
    data = bytearray(encoded(ridges(), "png"))
    data[-20] ^= 1
    assert problem(bytes(data)) is ImageProblem.DAMAGED


def test_hostile_chunks_do_not_pass() -> None:
    png = encoded(ridges(), "png")
    bomb = with_chunk(png, b"zTXt", b"k\x00\x00" + zlib.compress(bytes(200_000_000), 9))
    assert problem(bomb) is ImageProblem.DAMAGED
    zero = with_chunk(png, b"pHYs", struct.pack(">IIB", 0, 0, 1))
    assert decode_image(zero, ppi=500).ppi == 500


def test_real_prints_decode(development_data: object) -> None:
    folder = str(development_data) + "/fingerprint/fvc2002_db1_b/101_1.png"
    with open(folder, "rb") as file:
        sample = decode_image(file.read(), ppi=500)
    assert sample.image.shape == (374, 388)
