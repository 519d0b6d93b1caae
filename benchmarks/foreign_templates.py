"""Error rates of another maker's minutiae that come in records of the standards.

    python -m benchmarks.foreign_templates

mindtct (NBIS, through `nbis-py`) finds the minutiae of FVC2002 DB1-4 B; our codecs write and read them in
every format; our comparison compares them. nbis-py's own ISO record is not what the standard says, so its
minutiae are taken, not its records. The resolution of a set goes through the record too: DB2 has 569 ppi.
Prints are found through REKAM_DATA.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import nbis
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT, provenance
from capture.decode import decode_image
from capture.fingerprint.template import FingerprintTemplate
from capture.formats.card_minutiae import CardSize, read_card_minutiae
from capture.formats.minutiae_record import (
    FingerView,
    Minutia,
    MinutiaeRecord,
    MinutiaType,
    RecordFormat,
    ScannedImage,
    read_minutiae_record,
)
from capture.formats.minutiae_template import FOREIGN_FLOOR, card_of, template_of, template_of_card
from matching.error_rates import operating_points
from matching.fingerprint import comparison, cylinders
from rekam.offline.prints import print_sets
from rekam.offline.samples import all_pairs

Through = Callable[[FingerView], FingerprintTemplate]


def main(
    results: Annotated[Path, typer.Option(help="Folder of the result file.")] = ROOT
    / "benchmarks"
    / "results",
) -> None:
    """Measure error rates of mindtct's minutiae through every minutiae format and record them."""
    started = time.monotonic()
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    mindtct = nbis.new_nbis_extractor(settings)
    folders = SETS["fvc2002"]
    sets = print_sets([prints / name for name in folders], list(folders.values()))
    views = {
        one.name: [mindtct_view(mindtct, i.path, folders[one.name]) for i in one.impressions] for one in sets
    }
    fingers = {one.name: np.array([i.finger for i in one.impressions]) for one in sets}
    formats: dict[str, Through] = {kind: through_record(kind) for kind in RecordFormat}
    formats |= {size: through_card(size) for size in CardSize}
    figures: dict[str, dict[str, object]] = {}
    for name, through in formats.items():
        each = {
            one: error_rates([through(view) for view in views[one]], fingers[one]) for one in sorted(folders)
        }
        mean = {rate: float(np.mean([rates[rate] for rates in each.values()])) for rate in ("eer", "fnmr")}
        figures[name] = {"mean_eer": mean["eer"], "mean_fnmr_at_fmr_1e-3": mean["fnmr"], "sets": each}
        print(f"{name:22s} mean EER {mean['eer']:.2%}, FNMR at FMR 1e-3 {mean['fnmr']:.2%} ", end="")
        print(" ".join(f"{rates['eer']:.2%}" for rates in each.values()))
    record = {
        "command": "python -m benchmarks.foreign_templates",
        **provenance(),
        "parameters": {
            "cylinders": repr(cylinders.PARAMS),
            "comparison": repr(comparison.PARAMS),
            "comparison_version": comparison.COMPARISON_VERSION,
            "foreign_floor": FOREIGN_FLOOR,
            "protocol": "EER: FVC, interpolated; FNMR at FMR 1e-3: all impostor pairs of a set",
        },
        "minutiae_a_print": float(np.mean([len(v.minutiae) for one in views.values() for v in one])),
        "seconds": round(time.monotonic() - started),
        "formats": figures,
    }
    results.mkdir(exist_ok=True)
    path = results / "foreign_templates.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def mindtct_view(mindtct: nbis.NbisExtractor, path: Path, ppi: float) -> FingerView:
    """What mindtct finds in an image, as a view in ISO units: its angles are the standard's, in degrees."""
    height, width = decode_image(path.read_bytes(), ppi=ppi).image.shape
    minutiae = tuple(
        Minutia(
            MinutiaType.ENDING if m.kind() is nbis.MinutiaKind.RIDGE_ENDING else MinutiaType.BIFURCATION,
            m.x(),
            m.y(),
            round(m.angle() * 256 / 360) % 256,
            max(1, min(100, round(m.reliability() * 100))),
        )
        for m in mindtct.extract_minutiae_from_image_file(str(path)).get()
    )
    resolution = round(ppi / 2.54)
    return FingerView(0, ScannedImage(width, height, resolution, resolution), minutiae)


def through_record(kind: RecordFormat) -> Through:
    """Write a view as a record of this format, read that, and make a template of it."""

    def through(view: FingerView) -> FingerprintTemplate:
        turned = tuple(
            m._replace(angle=round(m.angle / 256 * kind.angles) % kind.angles) for m in view.minutiae
        )
        written = MinutiaeRecord(kind, (FingerView(view.position, view.image, turned),)).to_bytes()
        return template_of(read_minutiae_record(written).views[0], kind)

    return through


def through_card(size: CardSize) -> Through:
    """The same by way of the card's minutiae, 60 at most."""

    def through(view: FingerView) -> FingerprintTemplate:
        card = card_of(template_of(view, RecordFormat.ISO_2005), size)
        return template_of_card(read_card_minutiae(card.to_bytes(), size))

    return through


def error_rates(templates: list[FingerprintTemplate], fingers: NDArray[np.str_]) -> dict[str, float]:
    """EER by the FVC protocol, and FNMR at FMR 1e-3 of all pairs."""
    described = [cylinders.cylinders(template) for template in templates]
    first, second = all_pairs(len(templates))
    scores = np.array(
        [comparison.similarity(described[i], described[j]) for i, j in zip(first, second, strict=True)],
        np.float64,
    )
    genuine = fingers[first] == fingers[second]
    is_first = np.array([finger not in fingers[:i] for i, finger in enumerate(fingers)])
    fvc = ~genuine & is_first[first] & is_first[second]
    return {
        "eer": operating_points(scores[genuine], scores[fvc]).equal_error_rate,
        "fnmr": operating_points(scores[genuine], scores[~genuine]).at_fmr(1e-3)[1],
    }


if __name__ == "__main__":
    typer.run(main)
