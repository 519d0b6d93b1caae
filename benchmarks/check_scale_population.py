"""Compare the irises and faces of the large galleries with real ones: as hard to tell apart, or easier.

    python -m benchmarks.check_scale_population

Irises: all pairs of the development eyes (CASIA-V1) beside made-up ones; faces: quantiles of strangers and
shares of mates that the calibration and `benchmarks/results/face.json` have of the development portraits
(LFW). Fingers: `benchmarks.check_population`. Writes `benchmarks/results/scale_population.json`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import synthetic_face_vectors, synthetic_iris_codes
from benchmarks.provenance import ROOT, provenance
from benchmarks.scale_population import SEED
from capture.decode import decode_iris_image
from capture.face.embedder import DlibEmbedder
from capture.iris.extract import IrisExtractor
from capture.iris.template import GROUP_WORDS
from matching.face.calibration import face_calibration
from matching.iris.comparison import IrisForm, compare_irises, iris_form
from matching.iris.scan import blocked, scan

RESULTS = ROOT / "benchmarks" / "results"
QUANTILES = (0.0001, 0.001, 0.01, 0.1, 0.5)
GENUINE = (0.01, 0.1, 0.5, 0.9, 0.99)
EYES, CAPTURES = 300, 2
FACES = 3000

Values = NDArray[np.floating]


def development_eyes(folder: Path) -> tuple[list[IrisForm], list[str]]:
    """All captures, and whose each is."""
    extractor = IrisExtractor()
    forms, whose = [], []
    for path in track(sorted(folder.glob("*.jpg")), "development eyes"):
        template = extractor.extract(decode_iris_image(path.read_bytes())).template
        if template is not None:
            forms.append(iris_form(template))
            whose.append(path.stem.split("_")[0])
    if not forms:
        raise SystemExit(f"no irises in {folder}: set REKAM_DATA to the folder of development data")
    return forms, whose


def made_up_eyes() -> tuple[list[IrisForm], list[str]]:
    """Right eyes of people enrolled, and of the same people sought."""
    forms, whose = [], []
    for index in range(EYES):
        eyes = synthetic_iris_codes.eyes(index, SEED)
        forms += [iris_form(synthetic_iris_codes.capture(eyes, number)[0]) for number in range(CAPTURES)]
        whose += [str(index)] * CAPTURES
    return forms, whose


def quantiles(values: Values, at: Sequence[float]) -> dict[str, float]:
    """By name, rounded."""
    return {str(q): round(float(np.quantile(values, q)), 4) for q in at}


def irises(forms: Sequence[IrisForm], whose: Sequence[str], rng: np.random.Generator) -> dict[str, object]:
    """Distances of all pairs by their scan codes, of strangers' (60,000 at most) and mates' by whole ones."""
    codes, masks = (np.stack([getattr(f, n)[:GROUP_WORDS] for f in forms]) for n in ("code", "mask"))
    blocks = blocked(codes, masks)
    distance = np.stack([scan(form, blocks)[: len(forms)] for form in forms])
    names = np.array(whose)
    first, second = np.triu_indices(len(forms), 1)
    same = names[first] == names[second]
    strangers, mates = np.flatnonzero(~same), np.flatnonzero(same)
    some = rng.permutation(strangers)[:60_000]

    def whole(pairs: NDArray[np.intp]) -> Values:
        return np.array([compare_irises(forms[first[p]], forms[second[p]]).distance for p in pairs])

    of_pairs = distance[first, second]
    bits = np.bitwise_count(masks).sum(axis=1)
    return {
        "eyes": len(set(whose)),
        "captures": len(forms),
        "valid_bits_of_2048": {"mean": round(float(bits.mean())), "deviation": round(float(bits.std()))},
        "scan_code": {
            "strangers": quantiles(of_pairs[strangers], QUANTILES),
            "mates": quantiles(of_pairs[mates], GENUINE),
        },
        "whole_code": {
            "strangers": quantiles(whole(some), QUANTILES),
            "mates": quantiles(whole(mates), GENUINE),
        },
    }


def faces() -> dict[str, object]:
    """Score that so many strangers reach, and share of mates that reaches the real ones' score."""
    enrolled, sought = (
        np.stack([synthetic_face_vectors.capture(i, SEED, number).vector for i in range(FACES)])
        for number in range(2)
    )
    scores = (1 + enrolled @ sought.T) / 2
    mates, strangers = np.diag(scores), scores[~np.eye(FACES, dtype=bool)]
    calibration = face_calibration(DlibEmbedder().digest)
    measured = json.loads((RESULTS / "face.json").read_text())["rates"]["and its mirror image"]
    told: dict[str, object] = {}
    for rate in (1e-2, 1e-3, 1e-4):
        threshold = calibration.threshold(rate)
        told[f"{rate:.0e}"] = {
            "score_of_real_strangers": round(threshold, 4),
            "score_of_made_up_strangers": round(float(np.quantile(strangers, 1 - rate)), 4),
            "real_mates_above": round(measured[f"tar_at_far_{rate:.0e}"][0] / 100, 4),
            "made_up_mates_above": round(float((mates >= threshold).mean()), 4),
        }
    return told


def main() -> None:
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    rng = np.random.default_rng(SEED)
    report = {
        "what": "irises and faces of the large galleries beside real ones: normalised distances, scores",
        "command": "python -m benchmarks.check_scale_population",
        **provenance(),
        "irises": {
            "real": irises(*development_eyes(data / "iris" / "casia_v1"), rng),
            "made_up": irises(*made_up_eyes(), rng),
        },
        "faces": faces(),
    }
    (RESULTS / "scale_population.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
