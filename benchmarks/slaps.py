"""How well slaps are taken apart: on drawn ones, and on ones laid together from real prints in memory.

    nice -n 10 python -m benchmarks.slaps

A slap is right where the outcome is the one it should be (all fingers, or told why not) and, where fingers
come out, each has its position and lies where it was put: tip, sides within 1/8, lower end within 1/4 inch.
Boxes are judged edge by edge as in NIST's SlapSeg evaluations; the limits are ours. Two other ways to find
fingers are counted beside ours: connected components, and peaks of the distance to the background. Fingers of
two made-up people are laid down again and again; CrossMatch prints are found through REKAM_DATA. How surely
two to four fingers tell their hand is counted by condition, as the workstation judges it.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, product
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.provenance import ROOT, provenance
from benchmarks.synthetic_slaps import (
    GLASS,
    LEFT_FOUR,
    RIGHT_FOUR,
    THUMBS,
    DrawnSlap,
    Kind,
    Laid,
    Patch,
    drawn_slap,
    hands,
    laid_slap,
    patch_of_print,
)
from capture.fingerprint.slap import (
    CutOff,
    OtherHand,
    Segmentation,
    Segmented,
    SlapFinger,
    WrongCount,
    segment,
)
from capture.sample import FingerPosition, Sample
from rekam.station.examiner import SURE_OF_HAND, hand_shows

SIDES, LOWER = 500 / 8, 500 / 4  # pixels
CUT = 0.85  # with less of a phalanx on the glass, it is cut off
WHOLE = 0.95  # with less, or with a corner this near to the edge, either answer is right
NEAR = 30  # pixels

Fingers = tuple[FingerPosition, ...]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A slap, what was asked for, and what should come out."""

    name: str
    slap: DrawnSlap
    asked: Fingers
    wanted: tuple[type[Segmentation], ...]
    ppi: int = 500


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What came of a case."""

    case: Case
    outcome: Segmentation
    overlaps: tuple[float, ...]
    in_place: bool
    seconds: float
    others: dict[str, int]

    @property
    def right(self) -> bool:
        """The outcome that should be, and every finger where it lies."""
        return isinstance(self.outcome, self.case.wanted) and self.in_place


def cases(draw: Callable[[Fingers, Kind, int], DrawnSlap], seed: int) -> Iterator[Case]:
    """Both hands and the thumbs in every condition; and what should be told apart from a good slap."""
    for nth, four in enumerate((RIGHT_FOUR, LEFT_FOUR)):
        for number, kind in enumerate(Kind):
            slap = draw(four, kind, seed + 20 * nth + number)
            yield Case(kind, slap, four, _wanted(slap))
        missing = four[(seed + nth) % 4]
        three = tuple(position for position in four if position != missing)
        slap = draw(three, Kind.PLAIN, seed + 20 * nth + 10)
        yield Case("three, declared", slap, three, _wanted(slap))
        yield Case("three of four", draw(three, Kind.PLAIN, seed + 20 * nth + 11), four, (WrongCount,))
        other = (LEFT_FOUR, RIGHT_FOUR)[nth]
        yield Case("other hand", draw(other, Kind.PLAIN, seed + 20 * nth + 12), four, (OtherHand,))
        slap = draw(four, Kind.PLAIN, seed + 20 * nth + 13)
        yield Case("1000 ppi", slap, four, _wanted(slap), ppi=1000)
    for number, kind in enumerate((Kind.PLAIN, Kind.DRY)):
        slap = draw(THUMBS, kind, seed + 40 + number)
        yield Case("thumbs", slap, THUMBS, _wanted(slap))


def _wanted(slap: DrawnSlap) -> tuple[type[Segmentation], ...]:
    inside = min(finger.inside for finger in slap.fingers)
    tips = np.concatenate([finger.corners for finger in slap.fingers])
    clear = ((tips > NEAR) & (tips < np.array(GLASS[::-1]) - NEAR)).all()
    if inside >= WHOLE and clear:
        return (Segmented,)
    # A finger that hardly shows may be missed as well as seen to be cut; neither passes for a whole hand.
    return (CutOff, WrongCount) if inside < CUT else (Segmented, CutOff)


def judged(case: Case) -> Judged:
    """Take a slap apart and compare with how it was laid."""
    image = case.slap.image
    if case.ppi != 500:
        scale = case.ppi / 500
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    seen: dict[str, Floats] = {}

    def trace(stage: str, value: NDArray[np.generic]) -> None:
        seen[stage] = value.astype(np.float32)

    started = time.process_time()
    outcome = segment(Sample(image, float(case.ppi)), case.asked, trace)
    seconds = time.process_time() - started
    pairs = list(zip(case.slap.fingers, outcome.fingers, strict=False))
    overlaps = tuple(overlap(laid, found) for laid, found in pairs)
    in_place = not isinstance(outcome, Segmented) or all(placed(*pair) for pair in pairs)
    others = {way.__name__: len(way(seen["upright"])) for way in (components, distance_peaks)}
    return Judged(case, outcome, overlaps, in_place, seconds, others)


def overlap(laid: Laid, found: SlapFinger) -> float:
    """Intersection over union."""
    both, _ = cv2.intersectConvexConvex(laid.corners, found.corners)
    areas = cv2.contourArea(laid.corners) + cv2.contourArea(found.corners)
    return float(both / (areas - both))


def placed(laid: Laid, found: SlapFinger) -> bool:
    """Whether it is that finger, and tip, sides and lower end are where they should be."""
    left, top, right, bottom = edges(laid, found)
    near = max(abs(left), abs(top), abs(right)) <= SIDES and abs(bottom) <= LOWER
    return found.position == laid.position and near


def edges(laid: Laid, found: SlapFinger) -> tuple[float, float, float, float]:
    """How far the found box's left, tip, right and lower end lie to the right of or below the laid one's."""
    a, b, _, d = laid.corners
    width, height = float(np.linalg.norm(b - a)), float(np.linalg.norm(d - a))
    x, y = (found.corners - a) @ (b - a) / width, (found.corners - a) @ (d - a) / height
    return (
        float(x[[0, 3]].mean()),
        float(y[:2].mean()),
        float(x[1:3].mean()) - width,
        float(y[2:].mean()) - height,
    )


def components(upright: Floats) -> list[tuple[float, float]]:
    """Fingers as connected parts of the map (a quarter of 500 ppi), the upper one where they overlap."""
    mask = (upright > 0.5).astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    large = [nth for nth in range(1, len(stats)) if stats[nth][cv2.CC_STAT_AREA] > 45 * 60]
    return _uppermost([(float(centres[nth][0]), float(stats[nth][cv2.CC_STAT_TOP])) for nth in large])


def distance_peaks(upright: Floats) -> list[tuple[float, float]]:
    """Fingers as peaks of the distance to the background, the upper one where they overlap."""
    mask = (upright > 0.5).astype(np.uint8)
    distance = cv2.GaussianBlur(cv2.distanceTransform(mask, cv2.DIST_L2, 5), (0, 0), 4)
    peaks = (distance > 18) & (distance >= cv2.dilate(distance, np.ones((41, 41), np.uint8)))
    _, _, _, centres = cv2.connectedComponentsWithStats(peaks.astype(np.uint8))
    return _uppermost([(float(x), float(y)) for x, y in centres[1:]])


def _uppermost(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    chosen: list[tuple[float, float]] = []
    for x, y in sorted(found, key=lambda one: one[1]):
        if all(abs(x - other) > 40 for other, _ in chosen):
            chosen.append((x, y))
    return chosen


def figures(results: list[Judged]) -> dict[str, object]:
    """Of all cases, and of each kind."""
    names = list(dict.fromkeys(one.case.name for one in results))
    good = [one for one in results if one.case.wanted == (Segmented,)]
    hands_asked = [one for one in good if one.case.asked[0] not in THUMBS]
    lying = [
        (laid, found)
        for one in results
        if len(one.outcome.fingers) == len(one.case.slap.fingers)
        for laid, found in zip(one.case.slap.fingers, one.outcome.fingers, strict=True)
        if laid.inside > WHOLE
    ]
    off = np.abs([edges(*pair) for pair in lying])
    count = {
        "ours": [len(one.outcome.fingers) == len(one.case.slap.fingers) for one in results],
        "components": [one.others["components"] == len(one.case.slap.fingers) for one in results],
        "distance peaks": [one.others["distance_peaks"] == len(one.case.slap.fingers) for one in results],
    }
    return {
        "slaps": len(results),
        "right": _share([one.right for one in results]),
        "good slaps": len(good),
        "good slaps fully right": _share([one.right for one in good]),
        "taken for the other hand, of good ones": sum(
            isinstance(one.outcome, OtherHand) for one in hands_asked
        ),
        "wrong count passed for right": sum(
            isinstance(one.outcome, Segmented) and len(one.outcome.fingers) != len(one.case.slap.fingers)
            for one in results
        ),
        "other hand passed for right": sum(
            isinstance(one.outcome, Segmented) and one.case.wanted == (OtherHand,) for one in results
        ),
        "count right": {way: _share(values) for way, values in count.items()},
        "intersection over union, mean": round(float(np.mean([overlap(*pair) for pair in lying])), 3),
        "90 % of edges within, mm (left, tip, right, lower end)": [
            round(float(value), 2) for value in np.quantile(off, 0.9, axis=0) * 25.4 / 500
        ],
        "CPU ms a slap of 500 ppi, median": round(
            1000 * float(np.median([one.seconds for one in results if one.case.ppi == 500])), 1
        ),
        "kinds": {
            name: {
                "slaps": sum(one.case.name == name for one in results),
                "right": _share([one.right for one in results if one.case.name == name]),
            }
            for name in names
        },
    }


def _share(values: list[bool]) -> float:
    return round(float(np.mean(values)), 4)


def hand_figures(people: range) -> dict[str, object]:
    """The confidence in the hand asked for, by condition, of two to four fingers of either hand.

    In the other hand it is what is left of 1. "untold": of fingers that do not tell their hand.
    """
    sure: defaultdict[str, list[float]] = defaultdict(list)
    for seed in people:
        owner = hands(seed)
        for four, kind in product(
            (RIGHT_FOUR, LEFT_FOUR), (Kind.PLAIN, Kind.TILTED, Kind.DRY, Kind.TOUCHING)
        ):
            for nth, fingers in enumerate(chain.from_iterable(combinations(four, n) for n in (2, 3, 4))):
                slap = drawn_slap(owner, fingers, kind, 1000 * seed + nth)
                outcome = segment(Sample(slap.image, 500.0), fingers)
                if isinstance(outcome, Segmented | OtherHand):
                    told = kind if hand_shows(fingers) else "untold"
                    sure[told].append(outcome.hand)
    return {
        told: {
            "slaps": len(values),
            "below 0.95": sum(value < SURE_OF_HAND for value in values),
            "0.95 or more in the other hand": sum(1 - value >= SURE_OF_HAND for value in values),
            "least, most": [round(min(values), 4), round(max(values), 4)],
        }
        for told, values in sure.items()
    }


def picture(results: list[Judged]) -> NDArray[np.uint8]:
    """The twelve worst: those that are wrong, then those of least overlap; laid red, found green."""
    worst = sorted(results, key=lambda one: (one.right, min(one.overlaps, default=0.0)))[:12]
    shown = []
    for one in worst:
        image = cv2.cvtColor(one.case.slap.image, cv2.COLOR_GRAY2RGB)
        for finger, colour in [(f, (220, 0, 0)) for f in one.case.slap.fingers] + [
            (f, (0, 150, 0)) for f in one.outcome.fingers
        ]:
            cv2.polylines(image, [finger.corners.astype(np.int32)], True, colour, 5)
        words = f"{one.case.name}: {type(one.outcome).__name__}{'' if one.right else ' (wrong)'}"
        cv2.putText(image, words, (20, 1470), cv2.FONT_HERSHEY_SIMPLEX, 2.4, (0, 0, 0), 5)
        shown.append(cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    shown += [np.full_like(shown[0], 255)] * (-len(shown) % 4)
    rows = [np.hstack(shown[n : n + 4]) for n in range(0, len(shown), 4)]
    return np.asarray(np.vstack(rows), np.uint8)


def real_patches(folder: Path, number: int) -> list[Patch]:
    """Prints of the first impressions, as something to lay down."""
    paths = sorted(folder.glob("*_1.png"))[:number]
    if not paths:
        raise SystemExit(f"no prints in {folder}: set REKAM_DATA, or use --no-real")
    read = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    return [patch_of_print(image.astype(np.uint8)) for image in read if image is not None]


def main(
    people: Annotated[int, typer.Option(min=1, help="Made-up people.")] = 2,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each person is drawn in every condition.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the first person.")] = 500,
    real: Annotated[bool, typer.Option(help="Slaps of CrossMatch prints, too.")] = True,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Measure and record in slaps.json and slaps.png; the picture shows drawn slaps only."""
    report: dict[str, object] = {}
    if real:
        data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
        patches = real_patches(data / "fingerprint" / "crossmatch", 40)

        def lay(fingers: Fingers, kind: Kind, seed: int) -> DrawnSlap:
            chosen = np.random.default_rng([seed, 23]).choice(len(patches), len(fingers), replace=False)
            return laid_slap(
                {one: patches[nth] for one, nth in zip(fingers, chosen, strict=True)}, kind, seed
            )

        laid = [judged(case) for nth in range(rounds) for case in cases(lay, 1000 * seed + 100 * nth)]
        report["real prints laid together"] = figures(laid)
    drawn: list[Judged] = []
    for person in range(seed, seed + people):
        owner = hands(person)
        for nth in range(rounds):
            draw = partial(drawn_slap, owner)
            drawn += [judged(case) for case in cases(draw, 1000 * person + 100 * nth)]
    report["drawn"] = figures(drawn)
    report["which hand"] = hand_figures(range(seed, seed + 3 * people))
    written = {"people": people, "rounds": rounds, "seed": seed, "results": report, "origin": provenance()}
    (results / "slaps.json").write_text(json.dumps(written, indent=2) + "\n")
    cv2.imwrite(str(results / "slaps.png"), cv2.cvtColor(picture(drawn), cv2.COLOR_RGB2BGR))
    typer.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
