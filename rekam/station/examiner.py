"""Captures to what a session keeps: frames and records judged by the pipelines that the service judges by."""

import io
from functools import cached_property
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capture.decode import (
    DecodeLimits,
    check_signature,
    decode_face_image,
    decode_image,
    decode_iris_image,
)
from capture.errors import CaptureError, ImageProblem, ImageRefused
from capture.face.embedder import DlibEmbedder
from capture.face.extract import FaceExtractor
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.slap import CutOff, OtherHand, Segmented, WrongCount, segment
from capture.fingerprint.template import ExtractorChoice
from capture.iris.extract import IrisExtractor
from capture.quality import Quality
from capture.sample import EyePosition, FingerPosition, Sample
from devices.device import Captured
from devices.frame import DeviceKind, Frame, Provenance, Record
from rekam.capturing import Template
from rekam.session import Place, Seen, Unfit, places

_SIGNATURE_SIDE = 1200
_JPEG_QUALITY = 95
SURE_OF_HAND = 0.95
_LIMITS = DecodeLimits()
_LARGEST_GLASS = 8.0  # inches a side


class PipelineExaminer:
    """The `rekam.session.Examiner` of this installation. Fingers are judged by the fast extractor.

    Creating it takes 0.1 s, the first face 2 s. Cost: 0.1 s a finger or eye, 0.5 s a face. Not thread-safe.
    """

    def __init__(self, choice: ExtractorChoice = ExtractorChoice.FAST) -> None:
        self._fingers = FingerprintExtractor(choice)
        self._irises = IrisExtractor()

    @cached_property
    def _faces(self) -> FaceExtractor:
        return FaceExtractor(DlibEmbedder())

    def examine(self, captured: Captured, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
        """What a capture shows of what was asked for, if it is that; a slap is cut into its fingers."""
        kind = asked[0].kind
        records = () if kind is DeviceKind.SIGNATURE else captured.records
        shown: tuple[Frame | Record, ...] = records or captured.frames
        if not shown:
            return Unfit("The device gave no picture: capture again.")
        # Each says what it is of, so nothing goes by its turn; a single one may leave that unsaid.
        of = [places(one.kind, one.positions) for one in shown]
        if of == [(Place(kind),)]:
            of = [asked]
        if sorted(chain(*of)) != sorted(asked):
            given, wanted = (", ".join(place.words for place in some) for some in (chain(*of), asked))
            return Unfit(f"The device gave {given} for {wanted}: capture all again.", short=True)
        try:
            match shown:
                case [Frame(kind=DeviceKind.FINGERPRINT) as slap] if len(asked) > 1 or _of_slap(slap):
                    return self._slap(slap, asked)
                case _ if len(shown) < len(asked):
                    return Unfit("The device gave several in one picture: capture one by one.", short=True)
            return tuple(self._seen(one, place) for one, (place,) in zip(shown, of, strict=True))
        except CaptureError as error:
            return Unfit(f"The picture cannot be used: {error}.")

    def quality(self, frame: Frame, place: Place) -> Quality:
        """The full quality of one frame; none at all where it cannot be used."""
        try:
            return self._seen(frame, place).quality
        except CaptureError:
            return Quality(0, usable=False)

    def _slap(self, frame: Frame, asked: tuple[Place, ...]) -> tuple[Seen, ...] | Unfit:
        fingers = tuple(FingerPosition(place.code) for place in asked)
        match segment(_print(frame), fingers):
            case Segmented() as found if found.hand >= SURE_OF_HAND or not hand_shows(fingers):
                return tuple(
                    self.judged(
                        Place(frame.kind, int(one.position)),
                        _png(one.sample.image, 500),
                        500,
                        words_of(frame.provenance),
                    )
                    for one in found.fingers
                )
            case WrongCount() as other:
                said = f"{len(other.fingers)} of {len(asked)} fingers were seen"
                return Unfit(f"{said}: capture all again, or declare what is missing.", short=True)
            case OtherHand() | Segmented():
                return Unfit("This looks like the other hand: present the hand that is asked for.")
            case CutOff() as cut:
                words = ", ".join(position.words for position in cut.cut_off)
                return Unfit(f"Partly beyond the glass: {words}. Move the hand to the middle.")

    def _seen(self, shown: Frame | Record, place: Place) -> Seen:
        device = words_of(shown.provenance)
        match shown:
            case Record():
                return self.judged(place, shown.data, None, device)
            case Frame(kind=DeviceKind.FINGERPRINT):
                image = _png(_print(shown).image, shown.ppi or 500)
            case Frame(kind=DeviceKind.IRIS):
                image = _png(_grey(shown.pixels))
            case Frame(kind=DeviceKind.SIGNATURE):
                image = _png(_at_most(shown.pixels, _SIGNATURE_SIDE))
            case _:
                image = _jpeg(shown.pixels)
        return self.judged(place, image, shown.ppi, device)

    def judged(self, place: Place, image: bytes, ppi: float | None = None, device: str = "") -> Seen:
        """As the service will see it: decoded from the very bytes that are sent. Raises `CaptureError`."""
        template: Template | None
        match place.kind:
            case DeviceKind.FINGERPRINT:
                finger = decode_image(image, position=FingerPosition(place.code), ppi=ppi)
                found = self._fingers.extract(finger)
                template, quality = found.template, found.quality
            case DeviceKind.IRIS:
                eye = decode_iris_image(image, eye=EyePosition(place.code))
                coded = self._irises.extract(eye)
                template, quality = coded.template, coded.quality
            case DeviceKind.SIGNATURE:
                check_signature(image)
                template, quality = None, Quality(100, usable=True)
            case _:
                face = self._faces.extract(decode_face_image(image))
                template, quality = face.template, face.quality
        return Seen(place, image, template, quality, ppi, device)


def hand_shows(fingers: tuple[FingerPosition, ...]) -> bool:
    """Whether these tell their hand: not one alone, no thumbs, not index and ring without the little one.

    Those two end about as far behind the middle finger, on either side of it.
    """
    digits = {(finger - 1) % 5 for finger in fingers}
    return len(digits) > 1 and 0 not in digits and (4 in digits or not {1, 3} <= digits)


def words_of(device: Provenance) -> str:
    """A device in one line: maker, model, serial number, or its id."""
    named = " ".join(filter(None, (device.maker, device.model, device.serial)))
    return f"{device.driver}: {named or device.device}"


def _print(frame: Frame) -> Sample:
    """A frame as a print, 500 ppi where the device does not say; raises `ImageRefused`.

    What no scanner has is refused before it is made 500 ppi: one of 1 ppi would take hundreds of gigabytes.
    """
    ppi, sides = frame.ppi or 500.0, frame.pixels.shape[:2]
    if not _LIMITS.min_ppi <= ppi <= _LIMITS.max_ppi:
        raise ImageRefused(ImageProblem.RESOLUTION_OUT_OF_RANGE, f"the device says {ppi:g} ppi")
    if max(sides) > _LARGEST_GLASS * ppi:
        raise ImageRefused(
            ImageProblem.TOO_MANY_PIXELS, f"{max(sides) / ppi:.1f} inches, too large for a hand"
        )
    return Sample(_grey(frame.pixels), ppi)


def _of_slap(frame: Frame) -> bool:
    """Whether a frame is of a glass on which a single finger must be looked for."""
    height, width = (side / (frame.ppi or 500) for side in frame.pixels.shape[:2])
    return bool(max(height, width) > _LIMITS.max_inches or height * width > _LIMITS.max_square_inches)


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8)


def _at_most(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _png(pixels: NDArray[np.uint8], ppi: float | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    if ppi is None:
        image.save(stream, "PNG")
    else:
        image.save(stream, "PNG", dpi=(ppi, ppi))
    return stream.getvalue()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()
