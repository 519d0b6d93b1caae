"""Who of a gallery is most like a probe: every code is scanned, whoever stands out is compared exactly.

Each modality names the subjects that stand out: fingers by the summed evidence of their codes, irises by
masked Hamming distances, faces by inner products, all of them over everybody. Whoever is named by any of
them is then compared in all modalities exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matching.encounter import EncounterComparison, EncounterForm, beside, compare_encounters
from matching.face.shelf import raise_cosines
from matching.fingerprint.code import finger_detail
from matching.fingerprint.code_scan import ABSENT
from matching.fingerprint.hands import FingerForm, likeness
from matching.fingerprint.shelf import FingersProbe, raise_evidence
from matching.iris.shelf import IrisesProbe, raise_nearness
from matching.segment import Segment
from matching.wanted import still_wanted


@dataclass(frozen=True, slots=True)
class Params:
    """How many subjects each modality has compared exactly."""

    # By fingers: of the first of them, those whose codes say more than this (log10 likelihood ratio), more by
    # so much for each telling finger beyond those that are enough, and always a few. So many up to this many
    # encounters; beyond, the number grows with this power of theirs.
    fingers: int = 20
    least_evidence: float = -0.5
    evidence_a_finger: float = 0.25
    fingers_always: int = 5
    fingers_up_to: int = 10_000
    growth: float = 0.4
    irises: int = 5
    faces: int = 5
    # of them negative ones, one in so many: somebody's many held attempts must not hide who they are
    held: int = 4
    # A finger is telling from so many minutiae on. Where so many tell, codes name the candidates; where fewer
    # do, codes name more, of whom an exact comparison of the fingers that tell most names the candidates.
    telling: int = 20
    fingers_enough: int = 4
    ranked: tuple[int, ...] = (800, 200, 100, 60)  # with 0, 1, 2, 3 telling fingers
    most_ranked: int = 1200
    least_likeness: float = -1.0
    ranked_fingers: int = 3
    # encounters without any telling finger, compared with every probe
    most_thin: int = 100


PARAMS = Params()
# Probes whose standings are in memory at once: 12 bytes an encounter each.
_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Match:
    """A subject, its encounter that compares best, and how."""

    key: int
    subject: int
    comparison: EncounterComparison


class Snapshot:
    """The segments of a gallery at one moment, to be searched while it changes. Thread-safe.

    `encounters`: how many the gallery has, where these segments hold only some of them.
    """

    __slots__ = ("_base", "_encounters", "_face_file", "_segments")

    def __init__(
        self, segments: Sequence[Segment], face_file: Path | None, *, encounters: int | None = None
    ) -> None:
        self._segments = segments
        self._face_file = face_file
        self._encounters = encounters
        self._base = np.concatenate([[0], np.cumsum([len(segment) for segment in segments])])

    def subject_keys(self, subject: int) -> tuple[int, ...]:
        """Keys of the subject's encounters, in the order they were added."""
        return tuple(int(s.keys[row]) for s in self._segments for row in s.rows(subject))

    def subjects(self) -> list[int]:
        """Everybody."""
        living = [segment.subjects[~segment.dead] for segment in self._segments]
        return np.unique(np.concatenate(living)).tolist() if living else []

    def compared(self, probe: EncounterForm, subjects: Sequence[int]) -> list[Match]:
        """The probe compared exactly with these subjects, best first, ties by scores, then by key."""
        best: list[Match] = []
        for subject in subjects:
            still_wanted()
            matches = [
                Match(
                    int(segment.keys[row]),
                    subject,
                    compare_encounters(probe, segment.form(row), face_file=self._face_file),
                )
                for segment in self._segments
                for row in segment.rows(subject)
            ]
            if matches:
                first, *others = sorted(matches, key=rank)
                told = beside(first.comparison, [other.comparison for other in others])
                best.append(replace(first, comparison=told))
        return sorted(best, key=rank)

    def few(self, excluded: frozenset[int]) -> list[int] | None:
        """Everybody but the excluded, where these are so few that all of them are compared exactly."""
        if sum(int((~segment.dead).sum()) for segment in self._segments) > 10 * PARAMS.fingers:
            return None
        subjects = [subject for subject in self.subjects() if subject not in excluded]
        return subjects if len(subjects) <= PARAMS.fingers else None

    def shortlists(self, probes: Sequence[EncounterForm], excluded: frozenset[int]) -> list[list[int]]:
        """For each probe the subjects to compare exactly: those whom any modality names."""
        if (everybody := self.few(excluded)) is not None:
            return [everybody for _ in probes]
        lists: list[list[int]] = []
        for first in range(0, len(probes), _TOGETHER):
            lists += self._named(probes[first : first + _TOGETHER], excluded)
        return lists

    def _named(self, probes: Sequence[EncounterForm], excluded: frozenset[int]) -> list[list[int]]:
        listed: list[dict[int, int]] = [{} for _ in probes]
        rows = int(self._base[-1])

        # 1. fingers
        if any(probe.fingers for probe in probes):
            asked = [FingersProbe(probe.fingers) for probe in probes]
            evidence = np.full((len(probes), rows), ABSENT, dtype=np.float32)
            for base, segment in self._each():
                raise_evidence(segment.fingers, asked, evidence, base, len(segment))
                evidence[:, base + np.flatnonzero(segment.dead)] = ABSENT
            for probe, of, names in zip(probes, evidence, listed, strict=True):
                names |= self._by_fingers(probe.fingers, of, excluded)

        # 2. irises
        if any(probe.irises for probe in probes):
            eyes = [IrisesProbe(probe.irises) for probe in probes]
            nearness = np.zeros((len(probes), rows), dtype=np.float32)
            for base, segment in self._each():
                raise_nearness(segment.irises, eyes, nearness, base, len(segment))
                nearness[:, base + np.flatnonzero(segment.dead)] = 0
            for of, names in zip(nearness, listed, strict=True):
                names |= self._standing_out(of, 0.0, PARAMS.irises, excluded)

        # 3. faces
        if any(probe.face is not None for probe in probes):
            cosines = np.zeros((len(probes), rows), dtype=np.float32)
            for base, segment in self._each():
                raise_cosines(segment.faces, [probe.face for probe in probes], cosines, base)
                cosines[:, base + np.flatnonzero(segment.dead)] = 0
            for of, names in zip(cosines, listed, strict=True):
                names |= self._standing_out(of, 0.0, PARAMS.faces, excluded)
        return [list(names) for names in listed]

    def _each(self) -> Iterator[tuple[int, Segment]]:
        """Each segment, and where its rows begin among all rows."""
        for base, segment in zip(self._base.tolist(), self._segments, strict=False):
            still_wanted()
            yield base, segment

    def _by_fingers(
        self, fingers: Sequence[FingerForm], evidence: NDArray[np.float32], excluded: frozenset[int]
    ) -> dict[int, int]:
        """The subjects named by fingers; `evidence` `(rows,)` is used up.

        Codes alone name them where enough fingers tell; else an exact comparison of some fingers does, of
        more whom the codes name. Encounters that codes cannot tell are compared with likewise.
        """
        if not fingers:
            return {}
        told = sorted(fingers, key=lambda finger: -finger_detail(finger.template))
        telling = telling_fingers(told)
        asked = told[: min(max(telling, 1), PARAMS.ranked_fingers)]
        encounters = self._encounters or len(evidence)
        named = how_many(telling, encounters)

        # 1. encounters without a telling finger
        thin = np.concatenate([base + segment.thin for base, segment in self._each()])
        of_thin = np.full_like(evidence, ABSENT)
        of_thin[thin] = evidence[thin]
        evidence[thin] = ABSENT
        few = self._standing_out(of_thin, ABSENT, PARAMS.most_thin, excluded)
        names = self._likest(told, few, PARAMS.fingers, 0)

        # 2. the others
        if telling < PARAMS.fingers_enough:
            many = self._standing_out(evidence, ABSENT, named, excluded)
            most = how_many(PARAMS.fingers_enough, encounters)
            return names | self._likest(asked, many, most, PARAMS.fingers_always)
        standing = self._standing_out(evidence, ABSENT, named, excluded)
        return names | {
            subject: row
            for place, (subject, row) in enumerate(standing.items())
            if place < PARAMS.fingers_always
            or evidence[row] > least_evidence(min(telling, self._finger_count(row)))
        }

    def _likest(
        self, asked: Sequence[FingerForm], of: dict[int, int], most: int, always: int
    ) -> dict[int, int]:
        """So many of the subjects whose fingers compare best with these, by the row of each.

        Of those whom the fingers deny `always` at most.
        """
        like = {subject: likeness(asked, self._form(row).fingers) for subject, row in of.items()}
        best = sorted(of, key=lambda subject: -like[subject])[:most]
        return {
            subject: of[subject]
            for place, subject in enumerate(best)
            if place < always or like[subject] > PARAMS.least_likeness
        }

    def _at(self, row: int) -> tuple[Segment, int]:
        """The segment of a row among all rows, and the row there."""
        number = int(np.searchsorted(self._base, row, side="right")) - 1
        return self._segments[number], row - int(self._base[number])

    def _form(self, row: int) -> EncounterForm:
        segment, own = self._at(row)
        return segment.form(own)

    def _finger_count(self, row: int) -> int:
        segment, own = self._at(row)
        return segment.finger_count(own)

    def _standing_out(
        self, standing: NDArray[np.float32], above: float, most: int, excluded: frozenset[int]
    ) -> dict[int, int]:
        """The subjects of the encounters that stand highest, so many at most, few of them held, by row."""
        looked_at = 4 * most
        while True:
            listed: dict[int, int] = {}
            held = 0
            highest = _highest(standing, above, looked_at)
            for row in highest.tolist():
                if len(listed) == most:
                    break
                segment, own = self._at(row)
                subject = int(segment.subjects[own])
                if subject in listed or subject in excluded:
                    continue
                if subject < 0 and held == max(1, most // PARAMS.held):
                    continue
                held += subject < 0
                listed[subject] = row
            if len(listed) == most or len(highest) < looked_at or looked_at >= len(standing):
                return listed
            looked_at *= 16


def telling_fingers(fingers: Sequence[FingerForm]) -> int:
    """How many of the fingers show enough for their codes to tell them."""
    return sum(finger_detail(finger.template) >= PARAMS.telling for finger in fingers)


def how_many(telling: int, encounters: int) -> int:
    """Subjects whom codes name, of so many encounters, to a probe with so many telling fingers."""
    growth: float = max(encounters / PARAMS.fingers_up_to, 1.0) ** PARAMS.growth
    if telling < PARAMS.fingers_enough:
        return min(round(PARAMS.ranked[telling] * growth), PARAMS.most_ranked)
    return round(PARAMS.fingers * growth)


def least_evidence(telling: int) -> float:
    """What codes must say at least for an exact comparison, of so many telling fingers that both may show.

    Mates rise with every finger and strangers sink: of seven telling ones, damaged, the lowest of 62 mates
    stood at 6.3; of four at 0.2.
    """
    return PARAMS.least_evidence + PARAMS.evidence_a_finger * max(telling - PARAMS.fingers_enough, 0)


_BLOCK = 64


def _highest(standing: NDArray[np.float32], above: float, most: int) -> NDArray[np.intp]:
    """Places of the highest values above a bound, highest first, ties by place; `most` of them or more.

    The nth highest of the maxima of blocks is a value that n values at least reach: only those are sorted.
    """
    blocks = standing[: len(standing) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    if len(blocks) > most:
        highest = blocks.max(axis=1)
        above = max(above, np.nextafter(np.partition(highest, -most)[-most], -np.inf, dtype=np.float32))
    places = np.flatnonzero(standing > above)
    return places[np.argsort(-standing[places], kind="stable")]


def rank(match: Match) -> tuple[float, float, int]:
    """Likelihood ratios are capped: among equals the higher scores go first."""
    compared = match.comparison
    scores = sum(share.score for share in compared.shares) + sum(share.score for share in compared.irises)
    if compared.face is not None:
        scores += compared.face.score
    return -compared.llr, -scores, match.key
