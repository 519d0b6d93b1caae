"""Error rates of people by number of fingers and set of modalities, one modality damaged at a time.

    python -m benchmarks.persons --cache DIR

Chimeric people (see `evaluate_person.py`): the hands of the nine people of CrossMatch, whose irises are
those of CASIA-V1 and whose faces those of LFW. Only who is sought is damaged, who is enrolled is not: fingers
are few, poor (minutiae lost, added and moved) or partial (cut); irises blurred, half covered, or one only;
portraits dark or narrowed as if turned away. The damage to images and templates is an imitation, and says so.
Writes `benchmarks/results/persons.json` and `.png`. Images are found through REKAM_DATA.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import cv2
import matplotlib.pyplot as plt
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.provenance import ROOT, provenance
from benchmarks.stress import DAMAGES, Damage, damaged
from capture.decode import decode_face_image, decode_iris_image
from capture.face.template import FaceTemplate
from capture.fingerprint.template import FingerprintTemplate
from capture.iris.extract import IrisExtractor
from capture.iris.template import IrisTemplate
from capture.sample import FaceSample, IrisSample, Modality
from matching.error_rates import Interval
from rekam.offline.evaluate_person import (
    ENCOUNTERS,
    ROUNDS,
    SHORT,
    WHOLE,
    Floats,
    Row,
    eye_pairs,
    faces_of,
    hands,
    irises_of,
    person_row,
    person_table,
    portrayed,
    table,
    whole_sets,
)
from rekam.offline.samples import EYES, PORTRAITS, face_extractor, sample_set

RESULTS = ROOT / "benchmarks" / "results"
SEED = 2026
FINGERS = (1, 2, 4, 6)
FACES = 27  # people, three for each pair of hands
PARTIAL = Damage(kept=(0.25, 0.45))
Image = NDArray[np.uint8]


# --- damage


def worse_prints(damage: Damage) -> Callable[[FingerprintTemplate], FingerprintTemplate]:
    """The damage, drawn from what a template holds: the same for the same print."""

    def change(template: FingerprintTemplate) -> FingerprintTemplate:
        return damaged(template, damage, np.random.default_rng([SEED, zlib.crc32(template.to_bytes())]))

    return change


def blurred(image: Image) -> Image:
    """Out of focus by three pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 3.0), dtype=np.uint8)


def half_covered(image: Image) -> Image:
    """A lid, of the median grey and as rough as a camera's noise, drawn over the eye's upper half."""
    found: dict[str, NDArray[np.generic]] = {}

    def trace(stage: str, value: NDArray[np.generic]) -> None:
        found[stage] = value

    IrisExtractor().extract(IrisSample(image), trace)
    lid = round(float(found["pupil"][1])) if "pupil" in found else image.shape[0] // 2
    rough = np.random.default_rng(SEED).normal(float(np.median(image)), 3.0, image.shape)
    covered = image.copy()
    covered[:lid] = np.clip(rough, 0, 255).astype(np.uint8)[:lid]
    return covered


def dark(image: Image) -> Image:
    """A seventh of the light, with the noise that comes with it."""
    noise = np.random.default_rng(SEED).normal(0.0, 3.0, image.shape)
    return np.clip(image / 7 + noise, 0, 255).astype(np.uint8)


def turned(image: Image) -> Image:
    """Narrowed to two thirds, as a head that is turned away is; what is hidden then is not."""
    h, w = image.shape[:2]
    narrow = cv2.resize(image, (2 * w // 3, h), interpolation=cv2.INTER_AREA)
    side = (w - narrow.shape[1]) // 2
    return np.asarray(
        cv2.copyMakeBorder(narrow, 0, 0, side, w - narrow.shape[1] - side, cv2.BORDER_REPLICATE),
        dtype=np.uint8,
    )


def worse_irises(folder: Path, change: Callable[[Image], Image]) -> list[list[IrisTemplate | None]]:
    """As `irises_of`, of changed images."""
    extractor = IrisExtractor()
    found: dict[str, list[IrisTemplate | None]] = {}
    for file in sample_set(folder, EYES).files:
        image = decode_iris_image(file.path.read_bytes()).image
        found.setdefault(file.subject, []).append(extractor.extract(IrisSample(change(image))).template)
    return list(found.values())


def worse_faces(folder: Path, change: Callable[[Image], Image]) -> list[list[FaceTemplate | None]]:
    """As `faces_of`, of changed images."""
    found: dict[str, list[Path]] = {}
    for file in sample_set(folder, PORTRAITS).files:
        found.setdefault(file.subject, []).append(file.path)
    chosen = [paths[:ENCOUNTERS] for paths in found.values() if len(paths) >= ENCOUNTERS][:FACES]
    return [
        [
            face_extractor().extract(FaceSample(change(decode_face_image(path.read_bytes()).image))).template
            for path in paths
        ]
        for paths in chosen
    ]


# --- tables


def finger_tables(folder: Path, cache: Path | None) -> dict[str, Floats]:
    """By condition."""
    tables = {}
    for count in FINGERS:
        enrolled = hands(folder, 500.0, cache, fingers=count)
        tables[f"{count}"] = table(enrolled, enrolled)
        if count in (2, 6):
            for name, damage in (("poor", DAMAGES["drop"]), ("partial", PARTIAL)):
                sought = hands(folder, 500.0, cache, fingers=count, change=worse_prints(damage))
                tables[f"{count} {name}"] = table(sought, enrolled)
    return tables


def iris_tables(folder: Path, cache: Path | None) -> dict[str, Floats]:
    """By condition."""
    whole = irises_of(folder, cache)
    enrolled = eye_pairs(whole)
    one = eye_pairs([taken if i % 2 == 0 else [None] * len(taken) for i, taken in enumerate(whole)])
    return {
        "both": table(enrolled, enrolled),
        "one": table(one, enrolled),
        "blurred": table(eye_pairs(worse_irises(folder, blurred)), enrolled),
        "half covered": table(eye_pairs(worse_irises(folder, half_covered)), enrolled),
    }


def face_tables(folder: Path, cache: Path | None) -> dict[str, Floats]:
    """By condition."""
    enrolled = portrayed(faces_of(folder, cache, FACES))
    return {
        "as taken": table(enrolled, enrolled),
        "dark": table(portrayed(worse_faces(folder, dark)), enrolled),
        "turned": table(portrayed(worse_faces(folder, turned)), enrolled),
    }


# --- rates


def rows(tables: Mapping[Modality, Mapping[str, Floats]]) -> list[Row]:
    """Rates of every set of modalities: by number of fingers, then with one modality damaged."""
    wanted = whole_sets(tables)
    known = {name for chosen in wanted for name in chosen.values()}
    for modality, conditions in tables.items():
        for name in conditions:
            if name not in known:
                rest = {Modality.FINGERPRINT: "2"} | WHOLE
                wanted += [{modality: name}, rest | {modality: name}]
    return [person_row(tables, chosen, SEED) for chosen in wanted]


def plot(result: list[Row], path: Path) -> None:
    """Counted FNIR of each modality alone, and modelled FNIR over the number of fingers."""
    figure, (alone, together) = plt.subplots(1, 2, figsize=(12, 5))
    # 1. One modality, whole and damaged.
    single = [row for row in result if len(row.used) == 1][::-1]
    names = [f"{modality}: {name}" for row in single for modality, name in row.used.items()]
    values, reach = _reach([row.rates.fnir for row in single])
    alone.barh(names, values, xerr=reach, capsize=3)
    alone.set_xscale("symlog", linthresh=0.1)
    alone.set_xlim(0, 130)
    alone.set_xlabel("FNIR, % (95 %: bootstrap over nine people)")
    alone.set_title("one modality alone: counted, at FPIR 1 % among 8 others")
    # 2. Several.
    for others in ({}, {"face": "as taken"}, {"irises": "both"}, {"face": "as taken", "irises": "both"}):
        of_count = [{**others, "fingers": f"{count}"} for count in FINGERS]
        points = [row.rates.modelled for used in of_count for row in result if row.used == used]
        values, reach = _reach(points)
        label = " + ".join(("fingers", *sorted(others)))
        together.errorbar(FINGERS, values, yerr=reach, marker="o", capsize=3, label=label)
    together.set_xlabel("fingers")
    together.set_xticks(FINGERS)
    together.set_yscale("symlog", linthresh=0.1)
    together.set_ylim(0, 130)
    together.set_ylabel("FNIR, %")
    together.set_title("together: modelled, at FPIR 1 % among 1,000,000")
    together.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _reach(intervals: list[Interval]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up, in %."""
    return [100 * one.value for one in intervals], [
        [100 * (one.value - one.low) for one in intervals],
        [100 * (one.high - one.value) for one in intervals],
    ]


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
) -> None:
    """Measure and write."""
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    tables = {
        Modality.FINGERPRINT: finger_tables(data / "fingerprint" / "crossmatch", cache),
        Modality.IRIS: iris_tables(data / "iris" / "casia_v1", cache),
        Modality.FACE: face_tables(data / "face" / "lfw", cache),
    }
    result = rows(tables)
    sizes = {SHORT[m]: len(next(iter(one.values()))) for m, one in tables.items()}
    content = {**provenance(), "seed": SEED, "rounds": ROUNDS, "people_of_each": sizes}
    content["rows"] = [{"used": row.used, **asdict(row.rates)} for row in result]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "persons.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plot(result, RESULTS / "persons.png")
    Console(width=140).print(person_table(result))


if __name__ == "__main__":
    typer.run(main)
