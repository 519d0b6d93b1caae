"""Coverage-guided fuzzing of every parser: whatever the bytes are, the typed refusal or a sound result.

    python -m benchmarks.fuzz_parsers [--seconds 60] [--runs N] [--seed N] [--target NAME ...] [--folder DIR]

Each target runs in a process of its own under atheris (libFuzzer); coverage of the parser's Python code
and of the Python libraries' below it guides the mutations. Seeds are made here and taken from the conformance
records under `REKAM_DATA`. What each target promises stands in its function: the errors of its room and no
others, accepted input written back byte for byte where the format promises it, ten seconds and 2 GB at most.
An input that breaks a promise is a finding: it is saved under DIR, and the command exits with 1.
"""

import argparse
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np

from capture.errors import ImageRefused, RecordRefused, TemplateRefused

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "conformance"
IMAGE_FORMATS = ("png", "jpeg", "bmp", "tiff", "wsq", "jp2", "j2k")
MAX_SECONDS, MAX_MEGABYTES = 10, 2048
_MAX_SEED = 1 << 16


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: what to call, what to begin with, the modules whose coverage guides, words of the format."""

    parse: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    modules: tuple[str, ...]
    words: tuple[bytes, ...] = ()


# --- 1. what each parser promises


def decode_image(data: bytes) -> None:
    """`ImageRefused`, or a sample within the limits."""
    from capture.decode import DecodeLimits, decode_image

    limits = DecodeLimits(max_bytes=1 << 20, max_pixels=1_000_000)
    try:
        sample = decode_image(data, ppi=500 if len(data) % 2 else None, limits=limits)
    except ImageRefused:
        return
    height, width = sample.image.shape
    if height * width > limits.max_pixels or min(height, width) < limits.min_side:
        raise AssertionError(f"an image of {width} x {height} pixels was let through")
    if not limits.min_ppi <= sample.ppi <= limits.max_ppi:
        raise AssertionError(f"a resolution of {sample.ppi} ppi was let through")


def decode_eye_or_portrait(data: bytes) -> None:
    """`ImageRefused`, or an eye in grey and a portrait in colour within the limits."""
    from capture.decode import decode_face_image, decode_iris_image
    from capture.pixels import PixelLimits
    from capture.sample import EyePosition, FaceSample, IrisSample

    limits = PixelLimits(max_bytes=1 << 20, max_pixels=1_000_000, min_side=48, max_side=4000)
    eye = EyePosition(len(data) % 3)
    decoders: tuple[Callable[[], IrisSample | FaceSample], ...] = (
        lambda: decode_iris_image(data, eye=eye, limits=limits),
        lambda: decode_face_image(data, limits=limits),
    )
    for decode in decoders:
        try:
            height, width = decode().image.shape[:2]
        except ImageRefused:
            continue
        fits = height * width <= limits.max_pixels and max(height, width) <= limits.max_side
        if not fits or min(height, width) < limits.min_side:
            raise AssertionError(f"an image of {width} x {height} pixels was let through")


def wsq(data: bytes) -> None:
    """`WsqDamaged`, or pixels of the announced size."""
    from capture.wsq import WsqDamaged, read_wsq, wsq_pixels

    try:
        file = read_wsq(data)
        if file.width * file.height > 1_000_000:
            return
        pixels = wsq_pixels(file)
    except WsqDamaged:
        return
    if pixels.shape != (file.height, file.width):
        raise AssertionError("the pixels are not of the announced size")


def template(data: bytes) -> None:
    """`TemplateRefused`, or a template written back byte for byte; once more with the checksum put right."""
    from capture.fingerprint.template import FingerprintTemplate

    repaired = data[:12] + struct.pack(">I", zlib.crc32(data[:12] + data[16:])) + data[16:]
    for one in (data, repaired):
        try:
            read = FingerprintTemplate.from_bytes(one)
        except TemplateRefused:
            continue
        _same(read.to_bytes(), one)


def iris_template(data: bytes) -> None:
    """`TemplateRefused`, or a template written back byte for byte; once more with the checksum put right."""
    from capture.iris.template import IrisTemplate

    repaired = data[:12] + struct.pack(">I", zlib.crc32(data[:12] + data[16:])) + data[16:]
    for one in (data, repaired):
        try:
            read = IrisTemplate.from_bytes(one)
        except TemplateRefused:
            continue
        _same(read.to_bytes(), one)


def face_template(data: bytes) -> None:
    """`TemplateRefused`, or a template written back byte for byte; once more with the checksum put right."""
    from capture.face.template import FaceTemplate

    repaired = data[:16] + struct.pack(">I", zlib.crc32(data[:16] + data[20:])) + data[20:]
    for one in (data, repaired):
        try:
            read = FaceTemplate.from_bytes(one)
        except TemplateRefused:
            continue
        _same(read.to_bytes(), one)


def minutiae_record(data: bytes) -> None:
    """`RecordRefused`, or a record that is written back byte for byte, and so is its extended data."""
    from capture.formats.extended_data import extended_block, read_extended_data
    from capture.formats.minutiae_record import read_minutiae_record

    try:
        record = read_minutiae_record(data)
    except RecordRefused:
        return
    _same(record.to_bytes(), data)
    for view in record.views:
        for block in view.extended:
            try:
                said = read_extended_data(block, record.format)
            except RecordRefused:
                continue
            if said is not None:
                _same(extended_block(said, record.format).data, block.data)


def minutiae_template(data: bytes) -> None:
    """`RecordRefused`, or templates of every view of a minutiae record."""
    from capture.fingerprint.template import FingerprintTemplate
    from capture.formats.minutiae_record import read_minutiae_record
    from capture.formats.minutiae_template import template_of

    try:
        record = read_minutiae_record(data)
        for view in record.views:
            FingerprintTemplate.from_bytes(template_of(view, record.format).to_bytes())
    except RecordRefused:
        return


def card_minutiae(data: bytes) -> None:
    """`RecordRefused`, or minutiae that are written back byte for byte."""
    from capture.formats.card_minutiae import CardSize, read_card_minutiae, read_card_template

    for read in (read_card_minutiae, read_card_template):
        for size in CardSize:
            try:
                card = read(data, size)
            except RecordRefused:
                continue
            _same(card.to_bytes(), data)


def finger_images(data: bytes) -> None:
    """`RecordRefused`, or a record written back byte for byte, its images decoded or refused."""
    from capture.decode import DecodeLimits, decode_finger_image
    from capture.formats.finger_image import read_finger_images

    try:
        record = read_finger_images(data)
    except RecordRefused:
        return
    _same(record.to_bytes(), data)
    for image in record.images[:4]:
        try:
            sample = decode_finger_image(image, limits=DecodeLimits(max_pixels=1_000_000))
        except (RecordRefused, ImageRefused):
            continue
        if sample.image.shape != (image.height, image.width):
            raise AssertionError("the sample is not of the announced size")


def iris_images(data: bytes) -> None:
    """`RecordRefused`, or a record written back byte for byte, its images told apart or refused."""
    from capture.formats.iris_image import iris_views, read_iris_images

    try:
        record = read_iris_images(data)
    except RecordRefused:
        return
    _same(record.to_bytes(), data)
    try:
        iris_views(record)
    except RecordRefused:
        return


def face_images(data: bytes) -> None:
    """`RecordRefused`, or a record that is written back byte for byte."""
    from capture.formats.face_image import read_face_images

    try:
        record = read_face_images(data)
    except RecordRefused:
        return
    _same(record.to_bytes(), data)


def cbeff(data: bytes) -> None:
    """`RecordRefused`, or a document that is read again as the same, and written again byte for byte."""
    from capture.formats.cbeff import read_cbeff, write_cbeff

    try:
        file = read_cbeff(data)
    except RecordRefused:
        return
    written = write_cbeff(file)
    again = read_cbeff(written)
    if again != file:
        raise AssertionError("what was written is read as something else")
    _same(write_cbeff(again), written)


def nik(data: bytes) -> None:
    """`InvalidNik`, or sixteen digits of a date that exists."""
    from rekam.errors import InvalidNik
    from rekam.nik import parse_nik

    try:
        number = parse_nik(data.decode("utf-8", "replace"))
    except InvalidNik:
        return
    if not (number.digits.isascii() and len(number.digits) == 16 and number.birth_years):
        raise AssertionError("no NIK, and accepted")
    number.warnings()


def finger_name(data: bytes) -> None:
    """`InvalidRequest`, or the finger that a file's name tells."""
    from rekam.client import finger_files
    from rekam.errors import InvalidRequest

    try:
        # In a folder that is not there: names are read, no files.
        finger_files([Path("missing") / data.decode("utf-8", "replace").replace("/", "_")])
    except InvalidRequest:
        return


def calibration(data: bytes) -> None:
    """`ParametersUnavailable`, or curves that answer with numbers."""
    from capture.fingerprint.template import Extractor
    from matching.errors import ParametersUnavailable
    from matching.fingerprint.calibration import SCORES

    try:
        read = SCORES.read(data.decode("utf-8", "replace"), Extractor.LEADER_1, Extractor.LEADER_1)
    except ParametersUnavailable:
        return
    for score in (-1.0, 0.0, 0.3, 2.0):
        if not (np.isfinite(read.llr(score)) and 0 <= read.fmr(score) <= 1):
            raise AssertionError(f"no likelihood ratio or rate for a score of {score}")


def _same(written: bytes, read: bytes) -> None:
    if written != read:
        raise AssertionError("what was read is not written back byte for byte")


# --- 2. what they begin with


def images(encoding: str) -> list[bytes]:
    """A whorl of 80 x 96 pixels, once with a resolution and once without."""
    from PIL import Image

    import_module("wsq")  # teaches Pillow to write WSQ
    y, x = np.mgrid[:96, :80]
    pixels = (128 + 100 * np.sin(2 * np.pi * np.hypot(x - 40, y - 50) / 9)).astype(np.uint8)
    files = []
    for picture in (Image.fromarray(pixels), Image.fromarray(pixels).convert("RGB")):
        stream = io.BytesIO()
        if encoding == "wsq":
            picture.convert("L").save(stream, "WSQ")
        elif encoding in ("jp2", "j2k"):
            picture.save(stream, "JPEG2000", no_jp2=encoding == "j2k")
        else:
            picture.save(stream, encoding.upper(), dpi=(500, 500))
        files.append(stream.getvalue())
    return files


def templates() -> list[bytes]:
    """Templates of none and of forty minutiae."""
    from capture.fingerprint.template import FingerprintTemplate
    from capture.sample import FingerPosition

    rng = np.random.default_rng(3)
    return [
        FingerprintTemplate(
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
        for n in (0, 40)
    ]


def iris_templates() -> list[bytes]:
    """Templates of one group and of four."""
    from capture.iris.template import GROUP_WORDS, IrisTemplate
    from capture.sample import EyePosition

    rng = np.random.default_rng(3)
    made = []
    for groups in (1, 4):
        code, mask = rng.integers(0, 2**63, (2, groups * GROUP_WORDS), np.uint64)
        made.append(IrisTemplate(code & mask, mask, EyePosition.LEFT, 70).to_bytes())
    return made


def face_templates() -> list[bytes]:
    """Templates of one value and of 128."""
    from capture.face.template import FaceTemplate

    vectors = [np.eye(1, n, dtype=np.float32)[0] for n in (1, 128)]
    return [FaceTemplate(vector, 70, b"embedder").to_bytes() for vector in vectors]


def minutiae_records() -> list[bytes]:
    """A record of every format, made of a template; the annexes' examples."""
    from capture.fingerprint.template import FingerprintTemplate
    from capture.formats.minutiae_record import RecordFormat
    from capture.formats.minutiae_template import record_of

    made = [FingerprintTemplate.from_bytes(data) for data in templates()]
    records = [record_of([one], kind).to_bytes() for one in made for kind in RecordFormat]
    return [*records, *_conformance(b"FMR")]


def card_records() -> list[bytes]:
    """Minutiae of both sizes, bare and within a template."""
    rng = np.random.default_rng(3)
    bare = [rng.bytes(3 * 20), rng.bytes(5 * 12)]
    return bare + [b"\x7f\x2e" + bytes([2 + len(body), 0x81, len(body)]) + body for body in bare]


def finger_records() -> list[bytes]:
    """Both editions around every compression; the conformance records."""
    from capture.formats.finger_image import (
        Compression,
        FingerImageRecord2005,
        FingerImageRecord2011,
        FingerRepresentation2011,
        FingerView2005,
        Grid,
    )

    grids = {
        Compression.NONE: bytes(48 * 50),
        Compression.PACKED: bytes(48 * 50),
        Compression.WSQ: images("wsq")[0],
        Compression.JPEG: images("jpeg")[0],
        Compression.JPEG_2000: images("jp2")[0],
        Compression.PNG: images("png")[0],
    }
    records = []
    for compression, data in grids.items():
        grid = Grid((500, 500), (500, 500), compression)
        width, height = (48, 50) if len(data) == 48 * 50 else (80, 96)
        old = FingerView2005(position=2, width=width, height=height, grid=grid, data=data)
        new = FingerRepresentation2011(
            position=2, width=width, height=height, grid=grid, data=data, extended=b"\0\3\0\6ab"
        )
        records += [
            FingerImageRecord2005(images=(old, old)).to_bytes(),
            FingerImageRecord2011(images=(new,), certified=True).to_bytes(),
        ]
    return [*records, *_conformance(b"FIR")]


def iris_records() -> list[bytes]:
    """A record of every layout."""
    from capture.formats.iris_image import (
        Eye2005,
        IrisImage2005,
        IrisRecord2005,
        IrisRecord2011,
        IrisRepresentation2011,
        Layout2005,
    )

    new = IrisRepresentation2011(eye=1, width=8, height=8, data=bytes(64), format=2)
    records = [IrisRecord2011(images=(new, new)).to_bytes()]
    for layout in Layout2005:
        image = IrisImage2005(data=bytes(64), geometry=bytes(51 if layout is Layout2005.IREX else 4))
        eyes = (Eye2005(eye=1, images=(image,)), Eye2005(eye=2, images=(image, image)))
        records.append(IrisRecord2005(eyes=eyes, width=8, height=8, format=2, layout=layout).to_bytes())
    return [*records, *_conformance(b"IIR")]


def face_records() -> list[bytes]:
    """A record of two images, with landmarks and without, of either edition."""
    from capture.formats.face_image import FaceImage, FaceImage2005, FaceRecord, FaceRecord2005

    old = FaceImage2005(width=8, height=8, data=bytes(64), format=0, points=(bytes(8),) * 2)
    image = FaceImage(width=8, height=8, data=bytes(64), format=0)
    marked = FaceImage(width=8, height=8, data=bytes(64), format=0, landmarks=(bytes(8),) * 3, extended=b"3d")
    return [
        FaceRecord(images=(image, marked)).to_bytes(),
        FaceRecord2005(images=(old, old)).to_bytes(),
        *_conformance(b"FAC"),
    ]


def eyes_and_portraits() -> list[bytes]:
    """An image of every format, upright and lying, and records around it that decode."""
    from PIL import Image

    from capture.formats.face_image import FaceImage, FaceRecord
    from capture.formats.iris_image import (
        Eye2005,
        IrisImage2005,
        IrisRecord2005,
        IrisRecord2011,
        IrisRepresentation2011,
    )

    files = [one for name in IMAGE_FORMATS for one in images(name)]
    lying = Image.Exif()
    lying[274] = 6
    for name in ("png", "jpeg"):
        stream = io.BytesIO()
        Image.new("RGB", (80, 96), "red").save(stream, name.upper(), exif=lying)
        files.append(stream.getvalue())
    eyes = (Eye2005(eye=1, images=(IrisImage2005(data=bytes(80 * 96)),)),)
    iris = IrisRepresentation2011(eye=2, width=80, height=96, data=images("png")[0], format=14)
    faces = [
        FaceImage(width=80, height=96, data=images(name)[1], format=form)
        for name, form in (("jpeg", 0), ("jp2", 1))
    ]
    return [
        *files,
        IrisRecord2005(eyes=eyes, width=80, height=96, format=2).to_bytes(),
        IrisRecord2011(images=(iris,)).to_bytes(),
        *(FaceRecord(images=(face,)).to_bytes() for face in faces),
        *_conformance(b"IIR"),
        *_conformance(b"FAC"),
    ]


def cbeff_files() -> list[bytes]:
    """One file of each schema; the conformance files with their data cut short."""
    from capture.formats import cbeff

    info = cbeff.BdbInfo(
        format=cbeff.RegistryId(organization="257", type="7"),
        created="2024-02-29T12:00:00.5Z",
        types=(cbeff.BiometricType.FINGER,),
        subtypes=(cbeff.Subtype.LEFT, cbeff.Subtype.THUMB),
        quality=cbeff.Quality(score=80),
    )
    inner = cbeff.Bir(bdb_info=info, bdb=b"data", sb=b"seal", others=(cbeff.Other(key="k", value="v"),))
    file = cbeff.CbeffFile(cbeff.Bir(birs=(inner,)), cbeff.Patron.BIAS)
    samples = [path.read_bytes() for path in sorted((DATA / "cbeff").glob("*.xml"))]
    return [cbeff.write_cbeff(file), *(re.sub(rb"[A-Za-z0-9+/=_-]{80,}", b"QUJD", one) for one in samples)]


def calibrations() -> list[bytes]:
    """The shipped calibration, its curves cut to three points, said to be of today's comparison."""
    from matching.fingerprint.comparison import COMPARISON_VERSION

    shipped = (ROOT / "matching" / "fingerprint" / "calibration.json").read_text()
    short = re.sub(r"\[([^,\]]*,[^,\]]*,[^,\]]*),[^\]]*\]", r"[\1]", shipped)
    today = f'"comparison_version": {COMPARISON_VERSION}'
    return [re.sub(r'"comparison_version": \d+', today, short).encode()]


def _conformance(magic: bytes) -> list[bytes]:
    """The records of one kind under `REKAM_DATA`, none where there is no such folder; the smallest ten."""
    files = [path for kind in ("*.iso", "*.raw") for path in sorted(DATA.rglob(kind))]
    records = {data for path in files if (data := path.read_bytes()).startswith(magic)}
    return [
        data for data in sorted(records, key=lambda data: (len(data), data))[:10] if len(data) <= _MAX_SEED
    ]


_RECORDS = ("capture.formats.representation",)
_IMAGES = ("capture.decode", "capture.pixels", "capture.wsq")
_CBEFF_WORDS = (
    *(b"Version", b"CBEFFVersion", b"BIRInfo", b"BDBInfo", b"SBInfo", b"BIR", b"BDB", b"SB", b"Others"),
    *(b"others", b"entry", b"Key", b"Value", b"Major", b"Minor", b"Creator", b"Index", b"Payload"),
    *(b"Integrity", b"CreationDate", b"ChallengeResponse", b"FormatOwner", b"FormatType", b"Format"),
    *(b"Organization", b"Type", b"Subtype", b"Level", b"Product", b"Purpose", b"Quality", b"Algorithm"),
    *(b"Score", b"QualityCalculationFailed", b"xmlns", b"true", b"-2", b"&lt;", b"&#13;", b"<![CDATA["),
    *(b"]]>", b"<!--", b"-->", b"<?", b"?>", b"<!DOCTYPE", b"<!ENTITY"),
)
_PILLOW = {
    "png": "PIL.PngImagePlugin",
    "jpeg": "PIL.JpegImagePlugin",
    "bmp": "PIL.BmpImagePlugin",
    "tiff": "PIL.TiffImagePlugin",
    "jp2": "PIL.Jpeg2KImagePlugin",
    "j2k": "PIL.Jpeg2KImagePlugin",
}
TARGETS = {
    **{
        f"image-{name}": Target(
            decode_image,
            lambda name=name: images(name),  # type: ignore[misc]
            (*_IMAGES, *([_PILLOW[name]] if name in _PILLOW else [])),
        )
        for name in IMAGE_FORMATS
    },
    "eye-or-portrait": Target(
        decode_eye_or_portrait,
        eyes_and_portraits,
        (*_RECORDS, *_IMAGES, *_PILLOW.values(), "capture.formats.iris_image", "capture.formats.face_image"),
    ),
    "wsq": Target(wsq, lambda: images("wsq"), ("capture.wsq",)),
    "template": Target(template, templates, ("capture.fingerprint.template",)),
    "iris-template": Target(iris_template, iris_templates, ("capture.iris.template",)),
    "face-template": Target(face_template, face_templates, ("capture.face.template",)),
    "minutiae-record": Target(
        minutiae_record,
        minutiae_records,
        (*_RECORDS, "capture.formats.minutiae_record", "capture.formats.extended_data"),
    ),
    "minutiae-template": Target(
        minutiae_template,
        minutiae_records,
        (*_RECORDS, "capture.formats.minutiae_record", "capture.formats.minutiae_template"),
    ),
    "card-minutiae": Target(card_minutiae, card_records, (*_RECORDS, "capture.formats.card_minutiae")),
    "finger-images": Target(
        finger_images, finger_records, (*_RECORDS, *_IMAGES, "capture.formats.finger_image")
    ),
    "iris-images": Target(iris_images, iris_records, (*_RECORDS, "capture.formats.iris_image")),
    "face-images": Target(face_images, face_records, (*_RECORDS, "capture.formats.face_image")),
    "cbeff": Target(cbeff, cbeff_files, ("capture.formats.cbeff",), _CBEFF_WORDS),
    "nik": Target(nik, lambda: [b"3201014502900001", b"1171010101000012"], ("rekam.nik",)),
    "finger-name": Target(
        finger_name,
        lambda: [b"right_thumb_2.png", b"10.iso", b"left-little.wsq"],
        ("rekam.client",),
        (b"right", b"left", b"index", b"unknown"),
    ),
    "calibration": Target(calibration, calibrations, ("matching.calibration",)),
}


# --- 3. running them


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of one target did; `coverage` counts edges, `finding` is what libFuzzer says of it."""

    executions: int
    corpus: int
    coverage: int
    finding: str | None


def fuzz(name: str, folder: Path, *, seconds: int = 0, runs: int = -1, seed: int = 1) -> Outcome:
    """Run one target in a process of its own, `seconds` (0: no limit) or `runs` (-1: no limit) long.

    Its corpus is kept in `folder/name`, and an input that breaks a promise in `folder`.
    """
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    words = folder / f"{name}.dict"
    words.write_text("".join(f'"{word.decode()}"\n' for word in TARGETS[name].words or (b"\\x00",)))
    command = [
        *(sys.executable, "-m", "benchmarks.fuzz_parsers", "--worker", name, str(corpus)),
        *(f"-dict={words}", f"-artifact_prefix={folder}/{name}-", f"-seed={seed}", f"-runs={runs}"),
        *(f"-max_total_time={seconds}", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MEGABYTES}"),
        *(f"-max_len={_MAX_SEED}", "-print_final_stats=1", "-verbosity=1"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = done.stdout + done.stderr
    # Where Python raised nothing (a crash, a timeout), libFuzzer's last words are all there is.
    trace = re.search(r"=== Uncaught Python exception: ===\n(.*?)\n\n", said, re.DOTALL)
    finding = None if done.returncode == 0 else trace[1] if trace else said[-2000:]
    return Outcome(
        executions=_last(r"(?:number_of_executed_units: |^#)(\d+)", said),
        corpus=_last(r"corp: (\d+)", said),
        coverage=_last(r"cov: (\d+)", said),
        finding=finding,
    )


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def worker(name: str, corpus: Path, options: list[str]) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    import atheris  # type: ignore[import-untyped]  # ships no types

    target = TARGETS[name]
    for i, data in enumerate(target.seeds()):
        (corpus / f"seed-{i}").write_bytes(data)
    for module in target.modules:
        for function in functions(import_module(module)):
            atheris.instrument_func(function)
    atheris.Setup([name, str(corpus), *options], target.parse)
    atheris.Fuzz()


def functions(module: ModuleType) -> list[FunctionType]:
    """The functions and methods that a module defines in Python; what numba compiled is none of them."""
    owners = [module, *(one for one in vars(module).values() if isinstance(one, type))]
    found = []
    for owner in owners:
        for value in vars(owner).values():
            plain = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                found.append(plain)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="executions of each target at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=TARGETS, help="again for more; all without it")
    parser.add_argument("--folder", type=Path, help="keeps corpora from run to run; findings are kept anyway")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="rekam-fuzz-"))
    if not DATA.is_dir():
        print(f"no conformance records in {DATA}: seeds are the generated ones (set REKAM_DATA)")

    findings = 0
    print(f"{'target':<18}{'executions':>12}{'corpus':>8}{'coverage':>10}{'findings':>10}")
    for name in arguments.target or TARGETS:
        outcome = fuzz(name, folder, seconds=arguments.seconds, runs=arguments.runs, seed=arguments.seed)
        findings += outcome.finding is not None
        row = f"{name:<18}{outcome.executions:>12,}{outcome.corpus:>8,}{outcome.coverage:>10,}"
        print(f"{row}{'0' if outcome.finding is None else '1':>10}", flush=True)
        if outcome.finding is not None:
            print(outcome.finding)
    if findings:
        print(f"{findings} targets broke a promise; inputs are in {folder}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
