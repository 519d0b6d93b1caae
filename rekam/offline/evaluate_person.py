"""Error rates of people: fingers, irises and face together, one person sought among others.

Sets of all modalities of the same people are rare, so people are put together (chimeric people): the fingers
of a person of one set, two eyes of a second, a face of a third. Fingers of one person stay together, since
they depend on each other; two eyes that follow each other in a set are taken for a pair. Who gets whose
eyes and face, and which samples make an encounter, is drawn anew in every round, with a seed.

    table    log10 likelihood ratios of one modality, `(P, P, K, K) float64`: of every encounter of everybody
             (first and third axis: who is sought) with every one of everybody (who is enrolled)
    search   of an encounter among one encounter of each of the others: its highest ratio is that of a search
             without a mate; against another encounter of its own person: one with a mate

FPIR(t) is the share of searches without a mate that find somebody at t, FNIR(t) of those with a mate that do
not find it (ISO/IEC 19795-1).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import log10
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.template import IrisTemplate
from capture.sample import EyePosition, FingerPosition, Modality
from matching.encounter import EncounterForm, compare_encounters
from matching.error_rates import Interval, interval
from matching.face.comparison import face_form
from matching.fingerprint.hands import FingerForm, finger_form
from matching.iris.comparison import IrisForm, iris_form
from rekam.offline.prints import extract, print_set
from rekam.offline.samples import EYES, PORTRAITS, EvaluationError, extract_file, sample_set, with_progress

ENCOUNTERS = 4  # of a person in a round: as many portraits as anybody must have
ROUNDS = 20
REPLICATES = 500
# The order in which fingers are used, where not all are.
USED_FIRST = (
    FingerPosition.RIGHT_INDEX,
    FingerPosition.LEFT_INDEX,
    FingerPosition.RIGHT_THUMB,
    FingerPosition.LEFT_THUMB,
    FingerPosition.RIGHT_MIDDLE,
    FingerPosition.LEFT_MIDDLE,
    FingerPosition.RIGHT_RING,
    FingerPosition.LEFT_RING,
    FingerPosition.RIGHT_LITTLE,
    FingerPosition.LEFT_LITTLE,
)
# Files are named PPPFF_n; fingers run from left little to right little.
_POSITION = dict(
    zip(
        range(1, 11),
        (FingerPosition(code) for code in (10, 9, 8, 7, 6, 1, 2, 3, 4, 5)),
        strict=True,
    )
)

Item = TypeVar("Item")
Floats = NDArray[np.float64]
People = list[list[EncounterForm]]
"""By person, then by encounter: what one modality shows."""


# --- 1. people of one modality


def hands(
    folder: Path,
    ppi: float,
    cache: Path | None,
    *,
    fingers: int = 10,
    change: Callable[[FingerprintTemplate], FingerprintTemplate] = lambda template: template,
    console: Console | None = None,
) -> People:
    """People of prints `PPPFF_n` (person, finger, impression), at most so many fingers of each.

    `change` is applied to every template; a bar is shown on `console`. Raises `EvaluationError`.
    """
    found: dict[str, dict[int, dict[FingerPosition, FingerForm]]] = {}
    for impression in _watched(print_set(folder, ppi).impressions, "extracting prints", console):
        person, finger = impression.finger[:-2], impression.finger[-2:]
        if not (person and finger.isdecimal() and int(finger) in _POSITION and impression.number.isdecimal()):
            raise EvaluationError(f"{impression.path.name} is not named <person><finger 01-10>_<number>")
        taken = found.setdefault(person, {}).setdefault(int(impression.number), {})
        template = extract(impression.path, ppi, cache).template
        if template is not None:
            position = _POSITION[int(finger)]
            read = change(FingerprintTemplate.from_bytes(template))
            taken[position] = finger_form(replace(read, position=position))
    people = [
        [EncounterForm(tuple(taken.values())) for _, taken in sorted(encounters.items())]
        for encounters in found.values()
    ]
    return fewer(people, fingers)


def fewer(people: People, fingers: int) -> People:
    """The same people with at most so many fingers of each: those of `USED_FIRST` that any encounter has."""
    cut = []
    for encounters in people:
        present = {finger.position for encounter in encounters for finger in encounter.fingers}
        used = [position for position in USED_FIRST if position in present][:fingers]
        cut.append(
            [
                EncounterForm(tuple(f for f in encounter.fingers if f.position in used))
                for encounter in encounters
            ]
        )
    return cut


def _watched(items: Sequence[Item], text: str, console: Console | None) -> Iterator[Item]:
    return iter(items) if console is None else with_progress(iter(items), len(items), text, console)


def eye_pairs(templates: Sequence[Sequence[IrisTemplate | None]]) -> People:
    """People of eyes (by eye, then by image): every two that follow each other are the right and the left."""
    people = []
    for right, left in zip(templates[::2], templates[1::2], strict=False):
        people.append(
            [
                EncounterForm(
                    irises=tuple(filter(None, (_eye(one, EyePosition.RIGHT), _eye(other, EyePosition.LEFT))))
                )
                for one, other in zip(right, left, strict=False)
            ]
        )
    return people


def _eye(template: IrisTemplate | None, position: EyePosition) -> IrisForm | None:
    if template is None:
        return None
    form = iris_form(template)
    return IrisForm(position, form.code, form.mask, form.coder, form.quality)


def portrayed(templates: Sequence[Sequence[FaceTemplate | None]]) -> People:
    """People of portraits (by person, then by image)."""
    return [
        [EncounterForm(face=None if one is None else face_form(one)) for one in taken] for taken in templates
    ]


def irises_of(
    folder: Path, cache: Path | None, console: Console | None = None
) -> list[list[IrisTemplate | None]]:
    """Templates of a folder's eyes, by eye, then by image. Raises `EvaluationError`."""
    found: dict[str, list[IrisTemplate | None]] = {}
    for file in _watched(sample_set(folder, EYES).files, "extracting eyes", console):
        made = extract_file(file.path, Modality.IRIS, cache).template
        found.setdefault(file.subject, []).append(None if made is None else IrisTemplate.from_bytes(made))
    return list(found.values())


def faces_of(
    folder: Path, cache: Path | None, people: int | None = None, console: Console | None = None
) -> list[list[FaceTemplate | None]]:
    """Templates of the (first `people`) people of a folder who have enough portraits.

    Raises `EvaluationError`.
    """
    found: dict[str, list[Path]] = {}
    for file in sample_set(folder, PORTRAITS).files:
        found.setdefault(file.subject, []).append(file.path)
    enough = [paths[:ENCOUNTERS] for paths in found.values() if len(paths) >= ENCOUNTERS][:people]
    templates = []
    for paths in _watched(enough, "extracting portraits", console):
        made = [extract_file(path, Modality.FACE, cache).template for path in paths]
        templates.append([None if one is None else FaceTemplate.from_bytes(one) for one in made])
    return templates


def table(sought: People, enrolled: People) -> Floats:
    """Ratios of every encounter with every enrolled one, `(P, P, K, K)`.

    K is what everybody has. An encounter with itself is not compared. Cost: about 2 ms a pair of encounters
    of six fingers, 0.1 ms of eyes or faces.
    """
    people, encounters = len(enrolled), min(len(taken) for taken in enrolled)
    llrs = np.full((people, people, encounters, encounters), np.nan)
    for p, q in product(range(people), repeat=2):
        for a, b in product(range(encounters), repeat=2):
            if (p, a) != (q, b):
                llrs[p, q, a, b] = compare_encounters(sought[p][a], enrolled[q][b]).llr
    return llrs


# --- 2. people put together


def drawn(
    tables: Mapping[Modality, Floats], *, rounds: int = ROUNDS, seed: int = 0
) -> dict[Modality, Floats]:
    """Chimeric people: for each modality `(R, P, P, 4, 4)`, people in the order of the fingers.

    The draw depends on the sizes and the seed alone, so tables of damaged samples meet the same people.
    Raises `EvaluationError` where there are fewer eyes or faces than hands.
    """
    people = len(tables[Modality.FINGERPRINT])
    for modality, one in tables.items():
        if len(one) < people:
            raise EvaluationError(
                f"{people} people need as many of each modality, not {len(one)}: {modality}"
            )
        if one.shape[-1] < ENCOUNTERS:
            raise EvaluationError(f"people need {ENCOUNTERS} samples each, not {one.shape[-1]}: {modality}")
    result = {modality: np.empty((rounds, people, people, ENCOUNTERS, ENCOUNTERS)) for modality in tables}
    for turn in range(rounds):
        for number, (modality, one) in enumerate(sorted(tables.items())):
            rng = np.random.default_rng([seed, turn, number])
            # Hands stay in their order: they are who is who.
            whose = (
                np.arange(people) if modality is Modality.FINGERPRINT else rng.permutation(len(one))[:people]
            )
            taken = np.array([rng.permutation(one.shape[-1])[:ENCOUNTERS] for _ in range(people)])
            result[modality][turn] = one[
                whose[:, None, None, None],
                whose[None, :, None, None],
                taken[:, None, :, None],
                taken[None, :, None, :],
            ]
    return result


# --- 3. error rates


@dataclass(frozen=True, slots=True)
class PersonRates:
    """FNIR at an FPIR in a gallery of the others; `modelled`: FNIR at the threshold for a large gallery.

    The latter is log10(N / FPIR), which calibrated ratios of strangers pass that rarely: a computed FPIR and
    a counted FNIR.
    """

    mated: int
    unmated: int
    gallery: int
    threshold: float
    fnir: Interval
    modelled: Interval


def person_rates(
    llrs: Floats, *, fpir: float = 1e-2, modelled_gallery: int = 1_000_000, seed: int = 0
) -> PersonRates:
    """Rates of summed tables `(R, P, P, K, K)`; intervals by bootstrap over the people who are sought.

    A person is drawn with all rounds and encounters; the threshold is found anew in each replicate.
    """
    people, encounters = llrs.shape[1], llrs.shape[3]
    self_ = np.arange(people)
    same = llrs[:, self_, self_]  # (R, P, K, K)
    mated = np.moveaxis(same[:, :, ~np.eye(encounters, dtype=np.bool_)], 1, 0).reshape(people, -1)
    others = llrs.copy()
    others[:, self_, self_] = -np.inf
    unmated = np.moveaxis(others.max(axis=2), 1, 0).reshape(people, -1)
    needed = log10(modelled_gallery / fpir)

    def found(people_drawn: NDArray[np.int64]) -> tuple[float, float, float]:
        strangers = np.sort(unmated[people_drawn].ravel())[::-1]
        # the smallest threshold that no more than the wanted share of searches pass
        threshold = float(np.nextafter(strangers[int(fpir * len(strangers))], np.inf))
        mates = mated[people_drawn]
        return threshold, float((mates < threshold).mean()), float((mates < needed).mean())

    threshold, fnir, modelled = found(self_.astype(np.int64))
    rng = np.random.default_rng([seed, people])
    sought: NDArray[np.int64] = rng.integers(people, size=(REPLICATES, people))
    replicates = np.array([found(sought[turn]) for turn in range(REPLICATES)])
    return PersonRates(
        mated=mated.size,
        unmated=unmated.size,
        gallery=people - 1,
        threshold=threshold,
        fnir=interval(fnir, replicates[:, 1]),
        modelled=interval(modelled, replicates[:, 2]),
    )


# --- 4. by number of fingers and set of modalities

SHORT = {Modality.FINGERPRINT: "fingers", Modality.IRIS: "irises", Modality.FACE: "face"}
WHOLE = {Modality.IRIS: "both", Modality.FACE: "as taken"}


@dataclass(frozen=True, slots=True)
class Row:
    """`used`: by modality, which samples; and the rates of searches with them."""

    used: dict[str, str]
    rates: PersonRates


def whole_sets(tables: Mapping[Modality, Mapping[str, Floats]]) -> list[dict[Modality, str]]:
    """Every set of modalities, by number of fingers: which table of each."""
    others = [modality for modality in WHOLE if modality in tables]
    counts = [name for name in tables[Modality.FINGERPRINT] if name.isdecimal()]
    sets: list[dict[Modality, str]] = []
    for fingers in ({}, *({Modality.FINGERPRINT: count} for count in counts)):
        for size in range(len(others) + 1):
            sets += [fingers | {m: WHOLE[m] for m in chosen} for chosen in combinations(others, size)]
    return sets[1:]


def summed(
    tables: Mapping[Modality, Mapping[str, Floats]], chosen: Mapping[Modality, str], seed: int
) -> Floats:
    """Ratios of the chosen samples, `(R, P, P, 4, 4)`; the people are the same for every choice."""
    picked = {modality: tables[modality][name] for modality, name in chosen.items()}
    people = drawn({m: picked.get(m, next(iter(tables[m].values()))) for m in tables}, seed=seed)
    return np.asarray(np.sum([people[modality] for modality in picked], axis=0))


def person_row(
    tables: Mapping[Modality, Mapping[str, Floats]], chosen: Mapping[Modality, str], seed: int
) -> Row:
    """The rates of searches with these samples."""
    rates = person_rates(summed(tables, chosen, seed), seed=seed)
    return Row({SHORT[modality]: name for modality, name in sorted(chosen.items())}, rates)


def person_table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    made = Table("fingers", "irises", "face", "threshold", "FNIR at FPIR 1 % (%)", "modelled, N = 1 M (%)")
    for row in rows:
        made.add_row(
            *(row.used.get(name, "") for name in SHORT.values()),
            f"{row.rates.threshold:.1f}",
            _percent(row.rates.fnir),
            _percent(row.rates.modelled),
        )
    return made


def _percent(one: Interval) -> str:
    return f"{100 * one.value:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]"
