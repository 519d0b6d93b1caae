"""Error rates on real prints stay where they were measured; `benchmarks/results/` holds the full record.

Every bound leaves room for one or two pairs beside the measured figure, so that other versions of the
numerical libraries pass and a loss of accuracy does not. About 2 minutes on two cores.
"""

import os
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.accuracy import SETS
from capture.fingerprint.template import ExtractorChoice
from rekam.offline.evaluate_prints import Report, report
from rekam.offline.prints import Compared, compare_set, print_set


@pytest.fixture(scope="module", params=ExtractorChoice)
def compared(development_data: Path, request: pytest.FixtureRequest) -> dict[str, Compared]:
    """Every development set, extracted by one of the extractors and compared."""
    prints, workers = development_data / "fingerprint", len(os.sched_getaffinity(0))
    return {
        name: compare_set(
            print_set(prints / name, ppi),
            workers=workers,
            cache_folder=None,
            console=Console(quiet=True),
            extractor=request.param,
        )
        for folders in SETS.values()
        for name, ppi in folders.items()
    }


@pytest.fixture(scope="module")
def fvc2002(compared: dict[str, Compared]) -> Report:
    return report([compared[name] for name in SETS["fvc2002"]], replicates=100)


@pytest.fixture(scope="module")
def crossmatch(compared: dict[str, Compared]) -> Report:
    return report([compared["crossmatch"]], replicates=100)


def fnmr(result: Report, fmr: float) -> float:
    """FNMR at `fmr` over all impostor pairs of all sets."""
    (found,) = (at.fnmr for at in result.pooled.fnmr_at_fmr if at.fmr == fmr)
    assert found is not None
    return found.value


def test_every_print_gives_a_template(fvc2002: Report, crossmatch: Report) -> None:
    assert [one.failures for one in (*fvc2002.sets, *crossmatch.sets)] == [()] * 5


def test_fvc2002(fvc2002: Report) -> None:
    for one in fvc2002.sets:
        assert (one.fvc_protocol.genuine_pairs, one.fvc_protocol.impostor_pairs) == (280, 45)
        assert one.all_pairs.impostor_pairs == 2880
    assert fvc2002.mean_eer_fvc_protocol.value <= 0.0035
    # one genuine pair more or less is 0.0009
    assert fnmr(fvc2002, 1e-3) <= 0.01


def test_crossmatch(crossmatch: Report) -> None:
    (one,) = crossmatch.sets
    assert (one.all_pairs.genuine_pairs, one.all_pairs.impostor_pairs) == (1428, 81_600)
    assert one.fvc_protocol.fvc_equal_error_rate <= 0.0005
    # one genuine pair more or less is 0.0007
    assert one.all_pairs.equal_error_rate.value <= 0.001
    assert fnmr(crossmatch, 1e-3) <= 0.001
    assert fnmr(crossmatch, 1e-4) <= 0.0022
