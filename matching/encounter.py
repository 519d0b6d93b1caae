"""Two encounters compared in all modalities: fingers, irises and face put together.

Each modality says by how much more often one person gives what was seen than two people do, as a log10
likelihood ratio, and the three are added; one that is missing on either side adds nothing. Where modalities
contradict each other the sum is not the whole story: `EncounterComparison.conflict` tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path

from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition, Modality
from matching.face.calibration import face_calibration
from matching.face.comparison import FaceForm, compare_faces, face_form
from matching.fingerprint import hands
from matching.fingerprint.hands import Arrangement, FingerForm, FingerShare, compare_fingers, finger_form
from matching.fusion import Fusion, fused
from matching.iris import eyes
from matching.iris.comparison import IrisForm, iris_form
from matching.iris.eyes import EyeArrangement, IrisShare, compare_eyes

__all__ = [
    "Arrangement",
    "EncounterComparison",
    "EncounterForm",
    "EyeArrangement",
    "FaceShare",
    "FingerForm",
    "FingerShare",
    "IrisShare",
    "beside",
    "compare_encounters",
    "encounter_form",
    "enough_evidence",
    "same_eye_twice",
    "same_finger_twice",
]


@dataclass(frozen=True, slots=True)
class Params:
    """Log10 likelihood ratios of a modality, or of an eye: at or above, at or below."""

    asserted: float = 2.0
    denied: float = -1.0


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class EncounterForm:
    """What one encounter shows of a person.

    A known finger or eye occurs once, fingers of unknown position any number of times; two irises at most.
    """

    fingers: tuple[FingerForm, ...] = ()
    irises: tuple[IrisForm, ...] = ()
    face: FaceForm | None = None

    def __post_init__(self) -> None:
        known = [finger.position for finger in self.fingers if finger.position]
        if len(set(known)) != len(known):
            raise ValueError("a finger position is given twice in one encounter")
        seen = [iris.eye for iris in self.irises if iris.eye]
        if len(set(seen)) != len(seen):
            raise ValueError("an eye is given twice in one encounter")
        if len(self.irises) > 2:
            raise ValueError(f"a person has two eyes, not {len(self.irises)}")


def encounter_form(
    fingers: Sequence[FingerprintTemplate] = (),
    irises: Sequence[IrisTemplate] = (),
    face: FaceTemplate | None = None,
) -> EncounterForm:
    """Prepare an encounter's templates. Raises `ValueError` where a known finger or eye is given twice.

    Cost about 1 ms a finger on one thread; thread-safe.
    """
    return EncounterForm(
        tuple(finger_form(template) for template in fingers),
        tuple(iris_form(template) for template in irises),
        None if face is None else face_form(face),
    )


@dataclass(frozen=True, slots=True)
class FaceShare:
    """What the faces add: the comparison score, its log10 likelihood ratio and false match rate."""

    score: float
    llr: float
    fmr: float


@dataclass(frozen=True, slots=True)
class EncounterComparison:
    """The fused log10 likelihood ratio that both encounters are of one person, and its evidence.

    `llr` is the sum of what fingers, irises and face say; 0 where nothing can be compared. `arrangement` and
    `shares` are of the fingers, `eyes` and `irises` of the eyes; `face` is None where one side has none, or
    where the two were embedded by different models. Evidence stored before there were irises and faces is
    all the fingers'. `denied_elsewhere`: modalities that this encounter lacks and that the subject's other
    encounters deny (see `beside`).
    """

    llr: float
    arrangement: Arrangement
    shares: tuple[FingerShare, ...]
    irises: tuple[IrisShare, ...] = ()
    eyes: EyeArrangement = EyeArrangement.AS_DECLARED
    face: FaceShare | None = None
    fingers_llr: float = 0.0
    irises_llr: float = 0.0
    face_llr: float = 0.0
    denied_elsewhere: tuple[Modality, ...] = ()

    def __post_init__(self) -> None:
        if not self.irises and self.face is None:
            object.__setattr__(self, "fingers_llr", self.llr)

    @property
    def without_face(self) -> float:
        """What fingers and irises say."""
        return self.fingers_llr + self.irises_llr

    @property
    def comparable(self) -> bool:
        """Whether there was a finger or an eye to compare: a face alone decides nothing."""
        return bool(self.shares or self.irises)

    @property
    def anything(self) -> bool:
        """Whether there was anything to compare."""
        return self.comparable or self.face is not None

    @property
    def agreeing(self) -> float:
        """What the fingers and eyes that match say alone, less the logarithm of how many they are of."""
        if not self.comparable:
            return float("-inf")
        together = Fusion.load()
        agreeing_fingers = fused([max(share.llr, 0.0) for share in self.shares], together.fingers)
        agreeing_eyes = fused([max(share.llr, 0.0) for share in self.irises], together.eyes)
        return agreeing_fingers + agreeing_eyes - log10(len(self.shares) + len(self.irises))

    @property
    def mixed(self) -> bool:
        """Whether some fingers match and others do not."""
        return any(s.llr > 0 for s in self.shares) and any(s.llr < 0 for s in self.shares)

    @property
    def denied(self) -> bool:
        """Whether a finger rich in detail on both sides does not match."""
        params = hands.PARAMS
        return any(s.llr <= params.denied and s.cylinders >= params.rich_cylinders for s in self.shares)

    @property
    def conflict(self) -> tuple[Modality, ...]:
        """The modalities that deny what others assert; the irises also where one eye denies the other."""
        said = {
            Modality.FINGERPRINT: self.fingers_llr,
            Modality.IRIS: self.irises_llr,
            Modality.FACE: self.face_llr,
        }
        asserted = max(said.values()) >= PARAMS.asserted
        denying = {modality for modality, llr in said.items() if asserted and llr <= PARAMS.denied}
        denying |= set(self.denied_elsewhere if asserted else ())
        each = [share.llr for share in self.irises]
        if each and max(each) >= PARAMS.asserted and min(each) <= PARAMS.denied:
            denying.add(Modality.IRIS)
        return tuple(sorted(denying))

    @property
    def _said(self) -> dict[Modality, float]:
        """What each modality says that both sides have."""
        said = {}
        if self.shares:
            said[Modality.FINGERPRINT] = self.fingers_llr
        if self.irises:
            said[Modality.IRIS] = self.irises_llr
        if self.face is not None:
            said[Modality.FACE] = self.face_llr
        return said


def beside(best: EncounterComparison, others: Sequence[EncounterComparison]) -> EncounterComparison:
    """`best`, told what the same subject's other encounters deny in modalities that it lacks.

    Else whoever once came with irises alone could lend them to another's fingers: the encounter that has
    none would be the one that matches best. Of several that have a modality, the likest speaks.
    """
    denied = []
    for modality in Modality:
        said = [other._said[modality] for other in others if modality in other._said]
        known = any(modality in one.denied_elsewhere for one in (best, *others))
        if modality not in best._said and (max(said) <= PARAMS.denied if said else known):
            denied.append(modality)
    return replace(best, denied_elsewhere=tuple(denied))


def compare_encounters(
    probe: EncounterForm, reference: EncounterForm, *, face_file: Path | None = None
) -> EncounterComparison:
    """Compare fingers, irises and faces, each in the arrangement that explains them best, and add them up.

    What is missing on either side adds nothing. Every two samples are judged by the calibration of what made
    their templates, faces by `face_file` where it knows their embedder; raises `NotCalibrated` where there is
    none. Faces of two embedders are not compared. Cost for ten fingers: ten comparisons if they match, else
    about twenty; irises and face add 0.1 ms; thread-safe.
    """
    fingers = compare_fingers(probe.fingers, reference.fingers)
    irises = compare_eyes(probe.irises, reference.irises)
    face = _face_share(probe.face, reference.face, face_file)
    face_llr = 0.0 if face is None else face.llr
    return EncounterComparison(
        llr=fingers.llr + irises.llr + face_llr,
        arrangement=fingers.arrangement,
        shares=fingers.shares,
        irises=irises.shares,
        eyes=irises.arrangement,
        face=face,
        fingers_llr=fingers.llr,
        irises_llr=irises.llr,
        face_llr=face_llr,
    )


def _face_share(probe: FaceForm | None, reference: FaceForm | None, file: Path | None) -> FaceShare | None:
    if probe is None or reference is None or probe.embedder != reference.embedder:
        return None
    score = compare_faces(probe, reference)
    calibration = face_calibration(probe.embedder, file)
    poorer = min(probe.quality, reference.quality)
    return FaceShare(score, calibration.llr(score, poorer), calibration.fmr(score))


def same_finger_twice(form: EncounterForm) -> tuple[tuple[FingerPosition, FingerPosition, float], ...]:
    """Pairs of positions of one encounter that show the same finger, with their log10 likelihood ratio.

    Cost: 45 comparisons for ten fingers; thread-safe.
    """
    return hands.same_finger_twice(form.fingers)


def same_eye_twice(form: EncounterForm) -> tuple[tuple[EyePosition, EyePosition, float], ...]:
    """Two eyes of one encounter that are the same eye, with their log10 likelihood ratio; thread-safe."""
    return eyes.same_eye_twice(form.irises)


def enough_evidence(form: EncounterForm, needed: float) -> bool:
    """Whether fingers and irises could reach a log10 likelihood ratio of `needed`, each at its best.

    Each is worth what the calibration sample supports at most. A face adds nothing here: nobody is told from
    everybody else by the face alone.
    """
    most = hands.most_of_fingers(form.fingers) + eyes.most_of_eyes(form.irises)
    return most > 0 and most >= needed
