"""Fit what live prints against the minutiae of a card are worth, and write the calibration that is shipped.

    python -m benchmarks.calibrate_card --cache DIR

Each impression of the development sets is once the live one (LEADER) and once on a card: minutiae of mindtct
(NBIS) in the compact size, at most 60, as a chip of another maker's terminal would hold them; and the same
with our own minutiae. Both are shipped, because a card does not say whose minutiae it has. All genuine and
impostor pairs within a set count. Prints are found through REKAM_DATA.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import nbis
import numpy as np
import typer
from rich.console import Console

from benchmarks.accuracy import SETS
from benchmarks.calibrate import CONDITIONS, figures_of
from benchmarks.foreign_templates import mindtct_view
from benchmarks.provenance import ROOT, provenance
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from capture.formats.card_minutiae import CardSize
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import card_of, template_of
from capture.sample import Modality
from matching.calibration import Calibration
from matching.error_rates import FAILED, Pairs
from matching.fingerprint.comparison import similarity
from matching.fingerprint.cylinders import Cylinders, cylinders
from matching.fitting import Makers, Measured, content_with
from rekam.offline.prints import PrintSet, compare_set, print_sets
from rekam.offline.samples import all_pairs
from rekam.station.card_holder import card_finger

OUTPUT = ROOT / "rekam" / "station" / "card_calibration.json"


def main(
    cache: Annotated[Path | None, typer.Option(help="Keep templates here, and take them from here.")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measure, fit, write."""
    prints = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint"
    folders = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    settings = nbis.NbisExtractorSettings(
        min_quality=0.0, get_center=False, check_fingerprint=False, compute_nfiq2=False, ppi=None
    )
    mindtct = nbis.new_nbis_extractor(settings)
    makers: dict[str, list[Measured]] = {"mindtct": [], "ours": []}
    for one in print_sets([prints / name for name in folders], list(folders.values())):
        compared = compare_set(
            one,
            workers=workers,
            cache_folder=cache,
            console=Console(stderr=True),
            extractor=ExtractorChoice.ACCURATE,
        )
        live = [
            None if made.template is None else FingerprintTemplate.from_bytes(made.template)
            for made in compared.extracted
        ]
        views = [mindtct_view(mindtct, i.path, folders[one.name]) for i in one.impressions]
        theirs = [template_of(view, RecordFormat.ISO_2011) if view.minutiae else None for view in views]
        for maker, on_card in (("mindtct", theirs), ("ours", live)):
            makers[maker].append(measured(one, live, on_card))
    conditions = CONDITIONS[Modality.FINGERPRINT]
    names = list(folders)
    calibrations = {maker: conditions.fit(sets) for maker, sets in makers.items()}
    by_extractors: dict[Makers, Calibration] = {
        (Extractor.LEADER_1, Extractor.FOREIGN): calibrations["mindtct"],
        (Extractor.LEADER_1, Extractor.LEADER_1): calibrations["ours"],
    }
    text = content_with(conditions.scores, by_extractors, names, "")
    OUTPUT.write_text(text, encoding="utf-8")
    record = {"command": "python -m benchmarks.calibrate_card", **provenance()} | {
        maker: figures_of(calibrations[maker], names, sets, conditions) for maker, sets in makers.items()
    }
    text = json.dumps(record, indent=1)
    (ROOT / "benchmarks" / "results" / "calibration_card.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def measured(
    one: PrintSet, live: list[FingerprintTemplate | None], on_card: list[FingerprintTemplate | None]
) -> Measured:
    """Every two impressions of a set, the earlier live, the later on a card."""
    fingers = np.array([i.finger for i in one.impressions])
    numbers = np.unique(fingers, return_inverse=True)[1]
    probes = [None if template is None else cylinders(template) for template in live]
    references = [None if template is None else _through_card(template) for template in on_card]
    i, j = all_pairs(len(fingers))
    scores = [
        FAILED if a is None or b is None else similarity(a, b)
        for a, b in ((probes[m], references[n]) for m, n in zip(i, j, strict=True))
    ]
    pairs = Pairs(np.array(scores), fingers[i] == fingers[j], numbers[i], numbers[j])
    sizes = [np.array([0 if made is None else len(made) for made in side]) for side in (probes, references)]
    quality = np.array([0 if template is None else template.quality for template in live])
    return Measured(pairs, np.minimum(sizes[0][i], sizes[1][j]), quality[i])


def _through_card(template: FingerprintTemplate) -> Cylinders:
    return cylinders(card_finger(card_of(template, CardSize.COMPACT).to_bytes()))


if __name__ == "__main__":
    typer.run(main)
