"""Face comparison on the portraits of LFW: error rates, quality, and what an image costs.

    python -m benchmarks.face --cache DIR

Every two of the development portraits are compared once; an image without template matches nothing. Rates
come with 95 % intervals by bootstrap over people. They are told for the extractor's vectors, and for what
fewer crops of each face would give. Quality is judged as that of prints (`benchmarks/quality.py`), by the
worse portrait of a pair. Costs are processor times of one thread; dlib's own run of the network is measured
beside ours, on the same crops. Portraits are found through REKAM_DATA.
"""

import hashlib
import json
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import dlib
import numpy as np
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.provenance import ROOT, provenance
from benchmarks.quality import LOST, REJECTED, area, lost_of_the_rest, rank_correlation
from capture.decode import decode_face_image
from capture.face.detection import FaceFinder
from capture.face.embedder import DlibEmbedder
from capture.face.extract import FaceExtractor, one_direction, picked_first
from capture.face.quality import face_measures, portrait_quality
from capture.face.weights import Weights
from matching.error_rates import (
    FAILED,
    OperatingPoints,
    Pairs,
    impostors_needed,
    interval,
    operating_points,
    resampled_fingers,
    resampled_points,
)

RATES = (1e-2, 1e-3, 1e-4)
SEED = 2026
TIMED = 60
# How many of the crops of a face make its vector.
WAYS = {"one crop": 1, "and its mirror image": 2, "three margins, as shipped": 6}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """What was found: the vectors of the crops `(6, 128)`, none where there is no face."""

    person: str
    vectors: NDArray[np.float32]
    quality: int
    refused: bool


class Pipeline:
    """The steps of the extractor one by one, to time each and to keep the vectors of all crops."""

    def __init__(self) -> None:
        self.finder, self.embedder = FaceFinder(), DlibEmbedder()
        self.spent: dict[str, list[float]] = {}

    def __call__(self, path: Path) -> Portrait:
        """Run all steps on a file."""
        steps = [("", time.process_time())]

        def done(step: str) -> None:
            steps.append((step, time.process_time()))

        image = decode_face_image(path.read_bytes()).image
        done("decoding")
        faces = picked_first(self.finder.faces(image), image.shape[1], image.shape[0])
        done("detection")
        if not faces:
            return Portrait(path.parent.name, np.zeros((0, 128), np.float32), 0, True)
        landmarks = self.finder.landmarks(image, faces[0])
        done("landmarks")
        crops = self.embedder.crops(image, landmarks)
        done("crops")
        vectors = self.embedder.vectors(crops)
        done("network")
        measures = face_measures(image, faces, landmarks, vectors)
        quality = portrait_quality(measures, self.embedder.steady)
        done("quality")
        for (_, before), (step, after) in pairwise(steps):
            self.spent.setdefault(step, []).append(1000 * (after - before))
        return Portrait(path.parent.name, vectors, quality.score, not quality.usable)


def portraits(paths: list[Path], pipeline: Pipeline, cache: Path | None) -> list[Portrait]:
    """Of every file; kept in `cache` by the image and the code that made them."""
    sources = sorted((ROOT / "capture" / "face").glob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).digest()
    found = []
    for path in paths:
        name = hashlib.sha256(code + path.read_bytes()).hexdigest()[:24]
        kept = None if cache is None else cache / f"{name}.npz"
        if kept is not None and kept.exists():
            with np.load(kept) as data:
                one = Portrait(path.parent.name, data["vectors"], int(data["quality"]), bool(data["refused"]))
        else:
            one = pipeline(path)
            if kept is not None:
                np.savez(kept, vectors=one.vectors, quality=one.quality, refused=one.refused)
        found.append(one)
    return found


def compared(found: list[Portrait], crops: int) -> Pairs:
    """All pairs, scored by the vectors of the first `crops` crops; people are what `Pairs` calls fingers."""
    _, person = np.unique([one.person for one in found], return_inverse=True)
    vectors = np.zeros((len(found), 128), dtype=np.float32)
    for row, one in zip(vectors, found, strict=True):
        direction = one_direction(one.vectors[:crops]) if len(one.vectors) else None
        if direction is not None:
            row[:] = direction
    first, second = np.triu_indices(len(found), 1)
    cosine = (vectors @ vectors.T)[first, second].astype(np.float64)
    there = np.linalg.norm(vectors, axis=1) > 0
    score = np.where(there[first] & there[second], (1 + np.clip(cosine, -1, 1)) / 2, FAILED)
    return Pairs(score, person[first] == person[second], person[first], person[second])


def figures(pairs: Pairs, replicates: int) -> dict[str, object]:
    """EER, and TAR at each FAR that the sample supports, as value and interval, in percent."""

    def row(points: OperatingPoints) -> list[float]:
        return [points.equal_error_rate, *(1 - points.at_fmr(far)[1] for far in rates)]

    rates = [far for far in RATES if (~pairs.genuine).sum() >= impostors_needed(far)]
    value = row(operating_points(pairs.score[pairs.genuine], pairs.score[~pairs.genuine]))
    drawn = resampled_fingers(int(pairs.finger_a.max()) + 1, replicates=replicates, seed=(SEED,))
    again = np.array([row(points) for points in resampled_points(pairs, drawn) if points is not None])
    names = ["eer", *(f"tar_at_far_{far:.0e}" for far in rates)]
    shown: dict[str, object] = {}
    for column, name in enumerate(names):
        one = interval(value[column], again[:, column])
        shown[name] = [round(100 * number, 3) for number in (one.value, one.low, one.high)]
    return shown


def quality_figures(found: list[Portrait], pairs: Pairs) -> dict[str, object]:
    """How well quality predicts genuine scores: rank correlation, and areas as in `benchmarks/quality.py`."""
    quality = np.array([one.quality for one in found], dtype=np.float64)
    first, second = np.triu_indices(len(found), 1)
    worse = np.minimum(quality[first], quality[second])[pairs.genuine]
    scores = pairs.score[pairs.genuine]
    return {
        "rank_correlation": rank_correlation(worse, scores),
        "area": {f"{lost:.0%}": area(lost_of_the_rest(scores, worse, lost)) for lost in LOST},
        "ideal_area": {f"{lost:.0%}": area(lost_of_the_rest(scores, scores, lost)) for lost in LOST},
        "percentiles": dict(zip(("1", "5", "50", "95", "99"), percentiles(quality), strict=True)),
    }


def draw(found: list[Portrait], pairs: Pairs, to: Path) -> None:
    """Errors of the genuine pairs that remain as the worst are rejected, by quality and ideally."""
    quality = np.array([one.quality for one in found], dtype=np.float64)
    first, second = np.triu_indices(len(found), 1)
    scores = pairs.score[pairs.genuine]
    worse = np.minimum(quality[first], quality[second])[pairs.genuine]
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for lost, colour in zip(LOST, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        curve = lost_of_the_rest(scores, worse, lost)
        panel.plot(100 * REJECTED, 100 * curve, color=colour, label=f"quality, area {area(curve):.2f}")
        ideal = lost_of_the_rest(scores, scores, lost)
        panel.plot(100 * REJECTED, 100 * ideal, color=colour, alpha=0.3, linestyle="--")
    panel.set(
        title=f"LFW, {len(scores):,} genuine pairs (dashed: rejecting the lost first)",
        xlabel="rejected, worst quality first, %",
        ylabel="lost of the rest, %",
    )
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend()
    figure.savefig(to, dpi=120, metadata={"Software": None})


def percentiles(values: Floats) -> list[float]:
    return [float(number) for number in np.percentile(values, (1, 5, 50, 95, 99))]


def costs(paths: list[Path], pipeline: Pipeline) -> dict[str, float]:
    """Mean milliseconds of each step, and of dlib's own run of the network on the same crops."""
    network = dlib.face_recognition_model_v1(str(Weights.RESNET.path()))
    pipeline(paths[0])
    pipeline.spent.clear()
    by_dlib, apart = [], 0.0
    for path in paths[:: max(1, len(paths) // TIMED)][:TIMED]:
        one = pipeline(path)
        image = decode_face_image(path.read_bytes()).image
        faces = picked_first(pipeline.finder.faces(image), image.shape[1], image.shape[0])
        crop = pipeline.embedder.crops(image, pipeline.finder.landmarks(image, faces[0]))[0]
        before = time.process_time()
        vector = np.array(network.compute_face_descriptor(np.ascontiguousarray(crop)))
        by_dlib.append(1000 * (time.process_time() - before))
        apart = max(apart, float(np.abs(vector - one.vectors[0]).max()))
    spent = {step: float(np.mean(times)) for step, times in pipeline.spent.items()}
    return {
        **spent,
        "whole image": sum(spent.values()),
        "one crop by dlib's own run": float(np.mean(by_dlib)),
        "largest difference of a value from dlib's own run": apart,
    }


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep vectors here.")] = None,
    replicates: Annotated[int, typer.Option(help="Of the bootstrap.")] = 400,
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure faces on the development portraits."""
    cv2.setNumThreads(1)
    folder = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "face" / "lfw"
    paths = sorted(folder.glob("*/*.jpg"))
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline()
    found = portraits(paths, pipeline, cache)
    direct = FaceExtractor().extract(decode_face_image(paths[0].read_bytes())).template
    direction = one_direction(found[0].vectors)
    if direct is None or direction is None or not np.array_equal(direct.vector, direction):
        raise SystemExit("the steps timed here no longer are those of the extractor")
    pairs = {way: compared(found, crops) for way, crops in WAYS.items()}
    shipped = pairs["three margins, as shipped"]
    record = {
        "command": "python -m benchmarks.face",
        **provenance(),
        "images": len(found),
        "people": len({one.person for one in found}),
        "genuine_pairs": int(shipped.genuine.sum()),
        "impostor_pairs": int((~shipped.genuine).sum()),
        "failed_to_extract": sum(not len(one.vectors) for one in found),
        "refused_for_enrolment": sum(one.refused for one in found),
        "rates": {way: figures(one, replicates) for way, one in pairs.items()},
        "quality": quality_figures(found, shipped),
        "milliseconds": costs(paths, pipeline),
    }
    print(json.dumps({key: value for key, value in record.items() if key != "libraries"}, indent=1))
    results.mkdir(exist_ok=True)
    (results / "face.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(found, shipped, results / "face_quality.png")


if __name__ == "__main__":
    typer.run(main)
