"""Requests that nobody well-meaning sends, and the answer each gets from a live server.

python -m benchmarks.hostile_requests            ask a server of its own, print what differs
python -m benchmarks.hostile_requests --write    renew docs/hostile_requests.md from the table
"""

import io
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from google.protobuf.message import Message
from PIL import Image
from rich.console import Console

from benchmarks.encounters import Fingers, absent, enroll_request, made_up_nik, missing, samples
from benchmarks.population import person
from benchmarks.provenance import ROOT
from capture.face.embedder import DlibEmbedder
from capture.face.template import FaceTemplate
from capture.iris.template import GROUP_WORDS, IrisTemplate
from capture.sample import EyePosition, FingerPosition
from rekam.v1 import case_pb2, enrollment_pb2, gallery_pb2, identification_pb2, quality_pb2, types_pb2

PAGE = ROOT / "docs" / "hostile_requests.md"
SEED = 99
FINGERS = (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX)
CALL_SECONDS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Hostile:
    """A request, the status it must get, and words that must be in the answer.

    `answer` is a gRPC status, or `OK: <outcome>` for what is an outcome and no fault.
    """

    name: str
    method: str
    request: Message | bytes
    answer: str
    says: str


def hostile_requests() -> tuple[Hostile, ...]:
    """The table. Nothing in it depends on what the server holds, or changes it."""
    return (
        *_images(),
        *_templates(),
        *_eyes_and_faces(),
        *_encounters(),
        *_identities(),
        *_lookups(),
        *_protocol(),
    )


def answer_to(channel: grpc.Channel, hostile: Hostile) -> tuple[str, str]:
    """Send it; the status as in the table, and the words of the answer."""
    call = channel.unary_unary(f"/rekam.v1.{hostile.method}", None, None)
    data = hostile.request if isinstance(hostile.request, bytes) else hostile.request.SerializeToString()
    try:
        answer = call(data, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):
            raise
        return error.code().name, error.details() or ""
    if hostile.method == "EnrollmentService/Enroll":
        enrolled = enrollment_pb2.EnrollResponse.FromString(answer)
        words = " ".join(item.advice for item in enrolled.recapture.items)
        return f"OK: {enrolled.WhichOneof('outcome')}", words
    if hostile.method == "QualityService/Assess":
        quality = quality_pb2.AssessResponse.FromString(answer).quality
        outcome = "usable" if quality.usable else "unusable"
        return f"OK: {outcome}", " ".join(feedback.advice for feedback in quality.feedback)
    return "OK", ""


def rendered() -> str:
    """The page in docs/."""
    rows = hostile_requests()
    lines = [
        "# Hostile requests",
        "",
        "Requests that nobody well-meaning sends, and what each is answered. Every row is sent to a live",
        "server by `tests/test_hostile_requests.py`, which then checks that the server still serves and that",
        "the store is unchanged. The table is `benchmarks/hostile_requests.py`; renew this page with",
        "`python -m benchmarks.hostile_requests --write`.",
        "",
        "| # | request | method | answer | says |",
        "|---|---|---|---|---|",
    ]
    for number, row in enumerate(rows, 1):
        method = row.method.split("/")[-1]
        says = row.says.replace("|", "\\|")
        lines.append(f"| {number} | {row.name} | {method} | `{row.answer}` | {says} |")
    return "\n".join(lines) + "\n"


# Images -----------------------------------------------------------------------------------------------


def _images() -> Sequence[Hostile]:
    ramp = np.tile(np.linspace(0, 255, 400, dtype=np.uint8), (400, 1))
    noise = np.random.default_rng(SEED).integers(0, 256, (400, 400), dtype=np.uint8)
    png = _encoded(ramp, "PNG")
    small = _encoded(ramp[:20, :20], "PNG")
    two = io.BytesIO()
    frames = [Image.fromarray(ramp), Image.fromarray(noise)]
    frames[0].save(two, "TIFF", save_all=True, append_images=frames[1:], dpi=(500, 500))
    enroll = "EnrollmentService/Enroll"
    return (
        Hostile("no bytes", enroll, _with_image(b""), "INVALID_ARGUMENT", "needs an image or a template"),
        Hostile(
            "text as an image", enroll, _with_image(b"#!/bin/sh\nrm -rf /\n"), "INVALID_ARGUMENT", "no PNG"
        ),
        Hostile(
            "a PDF as an image", enroll, _with_image(b"%PDF-1.7\n" + bytes(500)), "INVALID_ARGUMENT", "no PNG"
        ),
        Hostile("half a PNG", enroll, _with_image(png[: len(png) // 2]), "INVALID_ARGUMENT", "damaged"),
        Hostile("a PNG cut after its header", enroll, _with_image(png[:40]), "INVALID_ARGUMENT", "damaged"),
        Hostile(
            "half a JPEG", enroll, _with_image(_encoded(noise, "JPEG")[:9000]), "INVALID_ARGUMENT", "damaged"
        ),
        Hostile(
            "a PNG that claims 60000 x 60000 pixels",
            enroll,
            _with_image(_lying_png(60_000, 60_000)),
            "INVALID_ARGUMENT",
            "60000 x 60000 pixels",
        ),
        Hostile(
            "a BMP that claims 30000 x 30000 pixels",
            enroll,
            _with_image(_lying_bmp(_encoded(ramp, "BMP"), 30_000, 30_000)),
            "INVALID_ARGUMENT",
            "30000 x 30000 pixels",
        ),
        Hostile(
            "a WSQ of garbage", enroll, _with_image(b"\xff\xa0" + noise.tobytes()), "INVALID_ARGUMENT", "wsq"
        ),
        Hostile("20 x 20 pixels", enroll, _with_image(small), "INVALID_ARGUMENT", "48 a side are needed"),
        Hostile(
            "two images in one TIFF",
            enroll,
            _with_image(two.getvalue()),
            "INVALID_ARGUMENT",
            "several images",
        ),
        Hostile(
            "an image of 17 MiB",
            enroll,
            _with_image(png + bytes(17 * 2**20)),
            "INVALID_ARGUMENT",
            "more than",
        ),
        Hostile(
            "a resolution that is no number",
            enroll,
            _with_image(png, ppi=nan),
            "INVALID_ARGUMENT",
            "pixels per inch",
        ),
        Hostile(
            "an infinite resolution", enroll, _with_image(png, ppi=inf), "INVALID_ARGUMENT", "pixels per inch"
        ),
        Hostile(
            "a resolution of -500", enroll, _with_image(png, ppi=-500), "INVALID_ARGUMENT", "pixels per inch"
        ),
        Hostile("a resolution of 72", enroll, _with_image(png, ppi=72), "INVALID_ARGUMENT", "240 to 1600"),
        Hostile(
            "a resolution of 99999", enroll, _with_image(png, ppi=99_999), "INVALID_ARGUMENT", "240 to 1600"
        ),
        Hostile(
            "no resolution anywhere",
            enroll,
            _with_image(_encoded(ramp, "PNG", ppi=None), ppi=0),
            "INVALID_ARGUMENT",
            "declare the scanner's pixels per inch",
        ),
        Hostile(
            "a white image",
            enroll,
            _with_image(_encoded(np.full((400, 400), 255, np.uint8), "PNG")),
            "OK: recapture",
            "Nothing was captured",
        ),
        Hostile(
            "a black image",
            enroll,
            _with_image(_encoded(np.zeros((400, 400), np.uint8), "PNG")),
            "OK: recapture",
            "capture",
        ),
        Hostile("a grey ramp", enroll, _with_image(png), "OK: recapture", "capture"),
        Hostile("white noise", enroll, _with_image(_encoded(noise, "PNG")), "OK: recapture", "capture"),
        Hostile(
            "a photograph of coins",
            enroll,
            _with_image(_encoded(_coins(), "PNG")),
            "OK: recapture",
            "capture",
        ),
        Hostile(
            "white noise, to be judged",
            "QualityService/Assess",
            quality_pb2.AssessRequest(sample=_image_sample(_encoded(noise, "PNG"))),
            "OK: unusable",
            "capture",
        ),
        Hostile(
            "a template, to be judged",
            "QualityService/Assess",
            quality_pb2.AssessRequest(sample=samples(_fingers(0))[0]),
            "INVALID_ARGUMENT",
            "an image is needed",
        ),
        Hostile(
            "nothing, to be judged", "QualityService/Assess", b"", "INVALID_ARGUMENT", "sample: is required"
        ),
    )


def _encoded(
    pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]], encoding: str, ppi: int | None = 500
) -> bytes:
    file = io.BytesIO()
    options = {} if ppi is None else {"dpi": (ppi, ppi)}
    Image.fromarray(pixels).save(file, encoding, **options)
    return file.getvalue()


def _coins() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Discs on a ground: edges and shades, no ridges."""
    y, x = np.mgrid[:400, :400]
    picture = np.full((400, 400), 200, np.uint8)
    for cx, cy, r in ((90, 110, 60), (260, 90, 80), (150, 290, 90), (320, 300, 55)):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        picture[inside] = (90 + 60 * (x - cx + r) / (2 * r))[inside].astype(np.uint8)
    return picture


def _lying_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def _lying_bmp(bmp: bytes, width: int, height: int) -> bytes:
    return bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]


def _image_sample(image: bytes, ppi: float = 500) -> types_pb2.Sample:
    return types_pb2.Sample(
        modality=types_pb2.MODALITY_FINGERPRINT,
        finger=types_pb2.FINGER_POSITION_RIGHT_INDEX,
        image=image,
        ppi=ppi,
    )


def _with_image(image: bytes, ppi: float = 500) -> enrollment_pb2.EnrollRequest:
    """An enrolment that is right but for its one image."""
    rest = absent(_fingers(0)[:1])
    sample = _image_sample(image, ppi)
    return enrollment_pb2.EnrollRequest(
        request_id="hostile", nik=made_up_nik(1), samples=[sample], missing=rest
    )


# Templates --------------------------------------------------------------------------------------------


def _templates() -> Sequence[Hostile]:
    good = _fingers(0)[0].to_bytes()
    enroll = "EnrollmentService/Enroll"

    def altered(place: int, value: int) -> bytes:
        return good[:place] + bytes([value]) + good[place + 1 :]

    conflicting = _good()
    conflicting.samples[0].finger = types_pb2.FINGER_POSITION_RIGHT_THUMB
    conflicting.missing.extend(missing([FingerPosition.RIGHT_INDEX]))
    del conflicting.missing[0]
    return (
        Hostile(
            "a template with a flipped bit",
            enroll,
            _with_template(altered(40, good[40] ^ 1)),
            "INVALID_ARGUMENT",
            "checksum",
        ),
        Hostile(
            "half a template", enroll, _with_template(good[: len(good) // 2]), "INVALID_ARGUMENT", "announces"
        ),
        Hostile(
            "three bytes of a template",
            enroll,
            _with_template(good[:3]),
            "INVALID_ARGUMENT",
            "at least 16 bytes",
        ),
        Hostile(
            "a template of version 9", enroll, _with_template(altered(2, 9)), "INVALID_ARGUMENT", "version 9"
        ),
        Hostile(
            "an ISO record as a template",
            enroll,
            _with_template(b"FMR\0 20\0" + bytes(60)),
            "INVALID_ARGUMENT",
            "not a native",
        ),
        Hostile(
            "a template of another finger", enroll, conflicting, "INVALID_ARGUMENT", "not the right thumb"
        ),
    )


def _with_template(template: bytes) -> enrollment_pb2.EnrollRequest:
    request = _good()
    request.samples[0].template = template
    return request


# Eyes and faces ---------------------------------------------------------------------------------------


def _eyes_and_faces() -> Sequence[Hostile]:
    noise = np.random.default_rng(SEED).integers(0, 256, (480, 640), dtype=np.uint8)
    white = _encoded(np.full((480, 640), 255, np.uint8), "PNG")
    png = _encoded(noise, "PNG")
    iris, face = _iris().to_bytes(), _face().to_bytes()
    print_ = _fingers(0)[0].to_bytes()
    both_ways = bytearray(iris)
    both_ways[16 : 16 + 256] = b"\xff" * 256  # code bits where the mask has none
    nan_face = bytearray(face)
    nan_face[20:24] = struct.pack(">f", nan)
    long_face = bytearray(face)
    long_face[20:24] = struct.pack(">f", 5)
    eye_1, no_left = {"eye": 1}, [_no_eye(2)]
    refused: list[tuple[str, types_pb2.Sample, str]] = [
        ("no bytes of an eye", _iris_sample(image=b"", **eye_1), "needs an image or a template"),
        ("text as an eye", _iris_sample(image=b"#!/bin/sh\n" * 9, **eye_1), "no iris image record"),
        ("text as a face", _face_sample(image=b"#!/bin/sh\n" * 9), "no face image record"),
        ("half a PNG as an eye", _iris_sample(image=png[: len(png) // 2], **eye_1), "damaged"),
        ("half a PNG as a face", _face_sample(image=png[: len(png) // 2]), "damaged"),
        ("a WSQ as a face", _face_sample(image=b"\xff\xa0" + noise.tobytes()), "no PNG"),
        (
            "an eye that claims 60000 x 60000 pixels",
            _iris_sample(image=_lying_png(60_000, 60_000), **eye_1),
            "60000 x 60000 pixels",
        ),
        (
            "a face that claims 60000 x 60000 pixels",
            _face_sample(image=_lying_png(60_000, 60_000)),
            "60000 x 60000 pixels",
        ),
        ("an eye of 17 MiB", _iris_sample(image=png + bytes(17 * 2**20), **eye_1), "more than"),
        ("an iris record of garbage", _iris_sample(image=b"IIR\0" + png, **eye_1), "iris image record"),
        ("a face record of garbage", _face_sample(image=b"FAC\0" + png), "face image record"),
        ("a print as an eye's template", _iris_sample(template=print_, **eye_1), "not a native iris"),
        ("an eye's template as a face's", _face_sample(template=iris), "not a native face"),
        ("an eye's template with a flipped bit", _iris_sample(template=_flipped(iris), **eye_1), "checksum"),
        ("a face's template with a flipped bit", _face_sample(template=_flipped(face)), "checksum"),
        ("half an eye's template", _iris_sample(template=iris[:200], **eye_1), "announces"),
        ("half a face's template", _face_sample(template=face[:200]), "announces"),
        ("a template of the other eye", _iris_sample(eye=2), "of the right eye, not the left eye"),
        (
            "an eye's template that is all masked",
            _iris_sample(template=_iris(valid=False).to_bytes(), **eye_1),
            "no bits that count",
        ),
        (
            "an eye's template with bits beside its mask",
            _iris_sample(template=_summed(both_ways, 12), **eye_1),
            "0 where masked",
        ),
        ("a face's template of no number", _face_sample(template=_summed(nan_face, 16)), "length 1"),
        ("a face's template of another length", _face_sample(template=_summed(long_face, 16)), "length 1"),
        (
            "a face's template of three values",
            _face_sample(template=_face(values=3).to_bytes()),
            "128 values, not 3",
        ),
        (
            "a face's template of a network nobody has",
            _face_sample(template=replace(_face(), embedder=b"12345678").to_bytes()),
            "another face embedder",
        ),
    ]
    recaptured: list[tuple[str, types_pb2.Sample, str]] = [
        ("a white image as an eye", _iris_sample(image=white, **eye_1), "No iris was found"),
        ("white noise as an eye", _iris_sample(image=png, **eye_1), "No iris was found"),
        ("a white image as a face", _face_sample(image=white), "No face was found"),
        ("white noise as a face", _face_sample(image=png), "No face was found"),
    ]

    def with_one(sample: types_pb2.Sample) -> enrollment_pb2.EnrollRequest:
        request = _good()
        request.samples.append(sample)
        if sample.modality == types_pb2.MODALITY_IRIS:
            request.missing_eyes.extend(
                [_no_eye(1)] if sample.eye == types_pb2.EYE_POSITION_LEFT else no_left
            )
        return request

    enroll = "EnrollmentService/Enroll"
    return (
        *(Hostile(name, enroll, with_one(one), "INVALID_ARGUMENT", says) for name, one, says in refused),
        *(Hostile(name, enroll, with_one(one), "OK: recapture", says) for name, one, says in recaptured),
        Hostile(
            "a face's template, to be judged",
            "QualityService/Assess",
            quality_pb2.AssessRequest(sample=_face_sample()),
            "INVALID_ARGUMENT",
            "an image is needed",
        ),
    )


def _iris(*, valid: bool = True) -> IrisTemplate:
    bits = np.random.default_rng(SEED).integers(0, 2**63, GROUP_WORDS, dtype=np.uint64)
    mask = np.full(GROUP_WORDS, 0xFFFF_FFFF_FFFF_0000 if valid else 0, dtype=np.uint64)
    return IrisTemplate(bits & mask, mask, EyePosition.RIGHT, 60)


def _face(values: int = 128) -> FaceTemplate:
    vector = np.random.default_rng(SEED).normal(size=values)
    return FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), 60, DlibEmbedder().digest)


def _iris_sample(**fields: object) -> types_pb2.Sample:
    """An eye's template, or what the fields say; a template of the right eye fits `eye=1`."""
    made = types_pb2.Sample(modality=types_pb2.MODALITY_IRIS, template=_iris().to_bytes())
    return _with(made, fields)


def _face_sample(**fields: object) -> types_pb2.Sample:
    return _with(types_pb2.Sample(modality=types_pb2.MODALITY_FACE, template=_face().to_bytes()), fields)


def _with(sample: types_pb2.Sample, fields: Mapping[str, object]) -> types_pb2.Sample:
    for field, value in fields.items():
        setattr(sample, field, value)
    return sample


def _no_eye(eye: int, reason: int = 4) -> types_pb2.MissingEye:
    return types_pb2.MissingEye(position=types_pb2.EyePosition.ValueType(eye), reason=_reason(reason))


def _flipped(template: bytes) -> bytes:
    return template[:40] + bytes([template[40] ^ 1]) + template[41:]


def _summed(template: bytearray, at: int) -> bytes:
    """The template with the checksum at `at` put right: only what it says is wrong."""
    body = bytes(template[:at] + template[at + 4 :])
    return bytes(template[:at]) + struct.pack(">I", zlib.crc32(body)) + bytes(template[at + 4 :])


# Encounters -------------------------------------------------------------------------------------------


def _encounters() -> Sequence[Hostile]:
    enroll = "EnrollmentService/Enroll"
    rows = []

    def row(name: str, says: str, **fields: object) -> None:
        request = _good()
        for field, value in fields.items():
            if isinstance(value, list):
                request.ClearField(field)  # type: ignore[arg-type]  # a name from below
                getattr(request, field).extend(value)
            else:
                setattr(request, field, value)
        rows.append(Hostile(name, enroll, request, "INVALID_ARGUMENT", says))

    def sample(**fields: object) -> types_pb2.Sample:
        made = samples(_fingers(0)[:1])[0]
        for field, value in fields.items():
            setattr(made, field, value)
        return made

    one, other = samples(_fingers(0))
    eleven = [sample(finger=0) for _ in range(11)]
    wrong = [types_pb2.Sample(modality=_modality(7), finger=_finger(99), ppi=nan) for _ in range(10)]
    undeclared = [types_pb2.MissingFinger(position=_finger(p)) for p in range(1, 11)]
    row("no samples", "1 to 13 fingers, eyes and faces", samples=[])
    row("eleven fingers", "10 fingers at most, not 11", samples=eleven)
    row("a thousand samples", "not 1000", samples=[sample() for _ in range(1000)])
    row("the right index twice", "presented 2 times", samples=[one, one])
    row("ten samples wrong in every way", "99 is no finger", samples=wrong)
    row("no modality", "fingerprint, iris or face", samples=[sample(modality=0), other])
    row("modality 7, of a later release", "fingerprint, iris or face", samples=[sample(modality=7), other])
    row("finger 13, a slap", "13 is no finger", samples=[sample(finger=13), other])
    row("finger -1", "-1 is no finger", samples=[sample(finger=-1), other])
    row(
        "fingers neither presented nor declared missing", "neither presented nor declared missing", missing=[]
    )
    row("missing for no reason", "reason: is required", missing=undeclared)
    row(
        "missing for reason 9",
        "9 is not known",
        missing=[types_pb2.MissingFinger(position=_finger(1), reason=_reason(9))],
    )
    row(
        "a missing finger without position",
        "position: is required",
        missing=[types_pb2.MissingFinger(reason=_reason(1))],
    )
    row("one finger missing twice", "declared missing twice", missing=missing([FingerPosition.LEFT_RING] * 2))
    row("presented and declared missing", "presented and declared missing", missing=missing(FINGERS))
    row(
        "a thousand missing fingers", "10 fingers at most", missing=missing([FingerPosition.LEFT_RING] * 1000)
    )
    right, left, portrait = _iris_sample(eye=1), _iris_sample(eye=2), _face_sample()
    third = _iris_sample(eye=0)
    row("a finger with an eye's position", "eye: does not belong", samples=[sample(eye=1), other])
    row(
        "an eye with a finger's position",
        "finger: does not belong",
        samples=[one, other, _iris_sample(finger=1)],
    )
    row("a face with an eye's position", "eye: does not belong", samples=[one, other, _face_sample(eye=2)])
    row("eye 3", "3 is no eye", samples=[one, other, _iris_sample(eye=3)])
    row("eye -1", "-1 is no eye", samples=[one, other, _iris_sample(eye=-1)])
    row("three eyes", "2 eyes at most, not 3", samples=[one, other, right, left, third])
    row("two faces", "1 face at most, not 2", samples=[one, other, portrait, portrait])
    row("the right eye twice", "the right eye is presented 2 times", samples=[one, other, right, right])
    row("one eye, and nothing of the other", "missing: left eye", samples=[one, other, right])
    row("a missing eye that is none", "position: is required", missing_eyes=[_no_eye(0)])
    row("a missing eye 9", "9 is no eye", missing_eyes=[_no_eye(9)])
    row("an eye missing for no reason", "reason: is required", missing_eyes=[_no_eye(1, 0)])
    row(
        "an eye missing twice",
        "the left eye is declared missing twice",
        missing_eyes=[_no_eye(2), _no_eye(2)],
    )
    row("a thousand missing eyes", "2 eyes at most", missing_eyes=[_no_eye(1)] * 1000)
    row(
        "an eye presented and declared missing",
        "presented and declared missing: right eye",
        samples=[one, other, right],
        missing_eyes=[_no_eye(1), _no_eye(2)],
    )
    row(
        "a face presented and declared missing",
        "presented and declared missing: the face",
        samples=[one, other, portrait],
        missing_face=4,
    )
    row("a face missing for reason 9", "missing_face: 9 is not known", missing_face=9)
    row("no request id", "request_id", request_id="")
    row("a request id of 65 characters", "1 to 64", request_id="x" * 65)
    row("a request id with control characters", "printable ASCII", request_id="a\x00b\x1b[2J")
    row("a request id of a million characters", "1 to 64", request_id="x" * 1_000_000)
    return rows


# Enum values of no release, as only a hostile or a newer client sends them.
_modality = types_pb2.Modality.ValueType
_finger = types_pb2.FingerPosition.ValueType
_reason = types_pb2.MissingReason.ValueType


def _good() -> enrollment_pb2.EnrollRequest:
    """An enrolment with nothing wrong; every row spoils it."""
    return enroll_request("hostile", made_up_nik(1), _fingers(0))


def _fingers(number: int) -> Fingers:
    return person(number, SEED, FINGERS)


# Identities -------------------------------------------------------------------------------------------


def _identities() -> Sequence[Hostile]:
    enroll = "EnrollmentService/Enroll"

    def claiming(**fields: object) -> enrollment_pb2.EnrollRequest:
        request = _good()
        for field, value in fields.items():
            setattr(request, field, value)
        return request

    niks = (
        ("no NIK", "", "nik: is required"),
        ("a NIK with letters", "32010101019O0001", "16 digits"),
        ("a NIK of 17 digits", "32010101019000011", "16 digits"),
        ("a NIK in Arabic-Indic digits", "٣٢٠١٠١٠١٠١٩٠٠٠٠١", "16 digits"),
        ("a NIK of a million digits", "3" * 1_000_000, "16 digits"),
        ("a NIK born on 31 February", "3201013102900001", "date of birth"),
        ("a NIK with serial 0000", "3201010101900000", "0001"),
        ("a NIK of province 00", "0001010101900001", "province"),
        ("SQL as a NIK", "3' OR '1'='1' --  ", "16 digits"),
    )
    return (
        *(Hostile(name, enroll, claiming(nik=nik), "INVALID_ARGUMENT", says) for name, nik, says in niks),
        Hostile(
            "born 1990-13-45", enroll, claiming(birth_date="1990-13-45"), "INVALID_ARGUMENT", "YYYY-MM-DD"
        ),
        Hostile("sex 5", enroll, claiming(sex=5), "INVALID_ARGUMENT", "5 is not known"),
    )


# Looking things up ------------------------------------------------------------------------------------


def _lookups() -> Sequence[Hostile]:
    probe = samples(_fingers(0))
    identify, verify = "IdentificationService/Identify", "IdentificationService/Verify"
    sql = "s-1'; DROP TABLE subject; --"
    many = [f"s-{n}" for n in range(101)]
    resolve = case_pb2.ResolveCaseRequest(request_id="hostile", case_id="c-none", operator="Siti")
    unresolved = _replaced(resolve, resolution=case_pb2.RESOLUTION_UNSPECIFIED)
    rejected = _replaced(resolve, resolution=case_pb2.RESOLUTION_REJECTED)
    return (
        Hostile(
            "an unknown subject",
            "GalleryService/GetSubject",
            gallery_pb2.GetSubjectRequest(subject_id="s-none"),
            "NOT_FOUND",
            "no subject s-none",
        ),
        Hostile(
            "SQL as a subject",
            "GalleryService/GetSubject",
            gallery_pb2.GetSubjectRequest(subject_id=sql),
            "NOT_FOUND",
            "no subject",
        ),
        Hostile(
            "a subject of a million characters",
            "GalleryService/GetSubject",
            gallery_pb2.GetSubjectRequest(subject_id="s" * 1_000_000),
            "INVALID_ARGUMENT",
            "1 to 100 characters",
        ),
        Hostile(
            "no subject",
            "GalleryService/GetSubject",
            gallery_pb2.GetSubjectRequest(),
            "INVALID_ARGUMENT",
            "a subject id or a NIK",
        ),
        Hostile(
            "an unknown NIK",
            "GalleryService/GetSubject",
            gallery_pb2.GetSubjectRequest(nik=made_up_nik(4)),
            "NOT_FOUND",
            "3201****",
        ),
        Hostile(
            "an unknown encounter",
            "EnrollmentService/GetEncounter",
            enrollment_pb2.GetEncounterRequest(encounter_id="e-0000000000"),
            "NOT_FOUND",
            "no encounter",
        ),
        Hostile(
            "an encounter for nobody",
            "EnrollmentService/AddEncounter",
            _adding("s-none"),
            "NOT_FOUND",
            "no subject s-none",
        ),
        Hostile(
            "deleting nobody",
            "EnrollmentService/DeleteSubject",
            enrollment_pb2.DeleteSubjectRequest(request_id="hostile", subject_id="s-none"),
            "NOT_FOUND",
            "no subject s-none",
        ),
        Hostile(
            "an unknown case",
            "CaseService/GetCase",
            case_pb2.GetCaseRequest(case_id="c-none"),
            "NOT_FOUND",
            "no case c-none",
        ),
        Hostile(
            "resolving an unknown case", "CaseService/ResolveCase", rejected, "NOT_FOUND", "no case c-none"
        ),
        Hostile(
            "resolving as nothing",
            "CaseService/ResolveCase",
            unresolved,
            "INVALID_ARGUMENT",
            "resolution: is required",
        ),
        Hostile(
            "resolving by nobody",
            "CaseService/ResolveCase",
            _replaced(rejected, operator="  "),
            "INVALID_ARGUMENT",
            "operator: is required",
        ),
        Hostile(
            "a remark of a million characters",
            "CaseService/ResolveCase",
            _replaced(rejected, comment="x" * 1_000_000),
            "INVALID_ARGUMENT",
            "2000 characters",
        ),
        Hostile(
            "a remark with a NUL character",
            "CaseService/ResolveCase",
            _replaced(rejected, comment="seen\0"),
            "INVALID_ARGUMENT",
            "comment: holds a NUL",
        ),
        Hostile(
            "four billion cases a page",
            "CaseService/ListCases",
            case_pb2.ListCasesRequest(page_size=2**32 - 1),
            "INVALID_ARGUMENT",
            "1 to 1000",
        ),
        Hostile(
            "SQL as a page token",
            "CaseService/ListCases",
            case_pb2.ListCasesRequest(page_token=sql),
            "INVALID_ARGUMENT",
            "no token",
        ),
        Hostile(
            "a page token nobody gave",
            "CaseService/ListCases",
            case_pb2.ListCasesRequest(page_token="c-abc"),
            "INVALID_ARGUMENT",
            "no token",
        ),
        Hostile(
            "case state 9",
            "CaseService/ListCases",
            case_pb2.ListCasesRequest(state=case_pb2.CaseState.ValueType(9)),
            "INVALID_ARGUMENT",
            "9 is not known",
        ),
        Hostile(
            "four billion subjects a page",
            "GalleryService/ListSubjects",
            gallery_pb2.ListSubjectsRequest(page_size=2**32 - 1),
            "INVALID_ARGUMENT",
            "1 to 1000",
        ),
        Hostile(
            "a page token of SQL",
            "GalleryService/ListSubjects",
            gallery_pb2.ListSubjectsRequest(page_token=sql),
            "INVALID_ARGUMENT",
            "no token",
        ),
        Hostile(
            "a search with nothing",
            identify,
            identification_pb2.IdentifyRequest(),
            "INVALID_ARGUMENT",
            "1 to 13 fingers",
        ),
        Hostile(
            "a search without 101 subjects",
            identify,
            identification_pb2.IdentifyRequest(samples=probe, exclude_subject_ids=many),
            "INVALID_ARGUMENT",
            "100 subjects at most",
        ),
        Hostile(
            "a search without nobody",
            identify,
            identification_pb2.IdentifyRequest(samples=probe, exclude_subject_ids=["s-none"]),
            "NOT_FOUND",
            "no subject",
        ),
        Hostile(
            "a search for a million candidates",
            identify,
            identification_pb2.IdentifyRequest(samples=probe, max_candidates=1_000_000),
            "INVALID_ARGUMENT",
            "1 to 20",
        ),
        Hostile(
            "claiming nobody",
            verify,
            identification_pb2.VerifyRequest(samples=probe),
            "INVALID_ARGUMENT",
            "a subject id or a NIK",
        ),
        Hostile(
            "claiming an unknown subject",
            verify,
            identification_pb2.VerifyRequest(samples=probe, subject_id="s-none"),
            "NOT_FOUND",
            "no subject",
        ),
        Hostile(
            "claiming half a NIK",
            verify,
            identification_pb2.VerifyRequest(samples=probe, nik="32010101"),
            "INVALID_ARGUMENT",
            "16 digits",
        ),
    )


def _adding(subject_id: str) -> enrollment_pb2.AddEncounterRequest:
    good = _good()
    return enrollment_pb2.AddEncounterRequest(
        request_id="hostile", subject_id=subject_id, samples=good.samples, missing=good.missing
    )


def _replaced(message: case_pb2.ResolveCaseRequest, **fields: object) -> case_pb2.ResolveCaseRequest:
    """A copy with other fields."""
    copy = case_pb2.ResolveCaseRequest()
    copy.CopyFrom(message)
    for field, value in fields.items():
        setattr(copy, field, value)
    return copy


# Below the messages -----------------------------------------------------------------------------------


def _protocol() -> Sequence[Hostile]:
    garbage = np.random.default_rng(SEED).bytes(5000)
    no_text = b"\x0a\x04\xff\xfe\xfd\xfc"  # field 1 is a string, and this is no UTF-8
    return (
        Hostile(
            "nothing at all", "EnrollmentService/Enroll", b"", "INVALID_ARGUMENT", "request_id: is required"
        ),
        Hostile(
            "garbage", "EnrollmentService/Enroll", garbage, "INVALID_ARGUMENT", "no message of this method"
        ),
        Hostile(
            "half a message",
            "EnrollmentService/Enroll",
            _good().SerializeToString()[:-7],
            "INVALID_ARGUMENT",
            "no message of this method",
        ),
        Hostile(
            "bytes that are no text",
            "EnrollmentService/GetEncounter",
            no_text,
            "INVALID_ARGUMENT",
            "no message of this method",
        ),
        Hostile(
            "a message of 49 MiB",
            "EnrollmentService/Enroll",
            bytes(49 * 2**20),
            "RESOURCE_EXHAUSTED",
            "larger than max",
        ),
        Hostile("an unknown method", "EnrollmentService/DropEverything", b"", "UNIMPLEMENTED", "not found"),
        Hostile("an unknown service", "AdminService/Shutdown", b"", "UNIMPLEMENTED", "not found"),
    )


def main(
    write: Annotated[bool, typer.Option("--write", help="Renew docs/hostile_requests.md.")] = False,
) -> None:
    """Send every row to a server and compare; with `--write` only renew the page."""
    from benchmarks.server_process import server

    console = Console()
    if write:
        PAGE.write_text(rendered(), encoding="utf-8")
        return
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="rekam-hostile-") as folder, server(Path(folder)) as process:
        # Larger messages than the server takes must be able to leave.
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(process.address, options=options) as channel:
            for row in hostile_requests():
                answer, text = answer_to(channel, row)
                if answer != row.answer or row.says not in text:
                    wrong += 1
                    console.print(
                        f"{row.name}: expected {row.answer} ({row.says}), got {answer}: {text[:200]}"
                    )
    console.print(f"{len(hostile_requests())} hostile requests, {wrong} answered otherwise than expected")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
