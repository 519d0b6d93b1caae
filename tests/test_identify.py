from pathlib import Path

import numpy as np
import pytest

from benchmarks import identify
from benchmarks.population import person


def test_the_benchmark_counts_what_it_claims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = [[person(900 + i, 1)[:2] for _ in range(2)] for i in range(2)]  # no real prints: no images read
    monkeypatch.setattr(identify, "real_people", lambda data, cache: {"real": real})
    report = identify.measure(tmp_path, None, 24, 10, tmp_path / "gallery")
    probes = report["probes"]
    assert isinstance(probes, dict)
    assert probes["real"]["same_as_oracle"] == probes["real"]["oracle_mates_first"] == 2
    assert probes["synthetic"]["mates_first"] == probes["synthetic"]["probes"] == 24
    assert probes["synthetic, not enrolled"]["mates_shortlisted"] == 0
    assert report["encounters"] == 26
    assert (tmp_path / "gallery" / "gallery.json").exists()


def test_a_damaged_print_is_a_smaller_part() -> None:
    [template] = person(3, 1)[:1]
    part = identify.damaged(template, np.random.default_rng(0))
    assert 0.3 * len(template) < len(part) < 0.7 * len(template)
