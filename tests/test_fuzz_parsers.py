"""A short run of the coverage-guided fuzzer on every parser; `benchmarks.fuzz_parsers` runs longer."""

import re
from pathlib import Path

import pytest

from benchmarks import fuzz_parsers
from benchmarks.fuzz_parsers import DATA, TARGETS, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_no_parser_breaks_its_promise(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, tmp_path, runs=250)
    assert outcome.finding is None, outcome.finding
    assert outcome.executions >= 250
    assert outcome.corpus >= 2
    assert outcome.coverage > 10


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_keeps_the_promise(name: str) -> None:
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        TARGETS[name].parse(seed)


def test_conformance_records_are_seeds(development_data: Path) -> None:
    assert DATA.parent.resolve() == development_data.resolve()
    for name, least in (("finger-images", 20), ("minutiae-record", 7), ("iris-images", 8), ("cbeff", 4)):
        assert len(TARGETS[name].seeds()) >= least, name


def test_what_breaks_a_promise_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No process fits into a megabyte.
    monkeypatch.setattr(fuzz_parsers, "MAX_MEGABYTES", 1)
    outcome = fuzz("nik", tmp_path, seconds=5)
    assert outcome.finding is not None
    assert re.search("out-of-memory", outcome.finding)
