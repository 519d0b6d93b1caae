"""How many a search looks at."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.population import person
from matching import search
from matching.delta import Delta
from matching.encounter import encounter_form
from matching.search import Snapshot, how_many, least_evidence
from matching.segment import Segment


def people(subjects: Sequence[int]) -> Snapshot:
    """One encounter of each, of nothing."""
    n = len(subjects)
    keys, whose = np.arange(n), np.array(subjects, dtype=np.int64)
    return Snapshot([Segment(keys, whose, np.zeros(n, dtype=np.bool_), {}, {}, {})], None)


def test_codes_name_more_in_larger_galleries() -> None:
    assert how_many(10, 10) == how_many(10, 10_000) == 20
    assert how_many(10, 1_000_000) == 126
    assert how_many(3, 10_000) == 60
    assert how_many(0, 1_000_000) == 1200


def test_the_more_fingers_tell_the_more_is_asked_of_strangers() -> None:
    assert [least_evidence(telling) for telling in (2, 4, 6, 10)] == [-0.5, -0.5, 0.0, 1.0]


def test_of_who_was_enrolled_with_few_fingers_less_is_asked() -> None:
    """A ten-finger probe has two fingers in common with them: their evidence cannot be that of ten."""
    delta = Delta()
    for i in range(8):
        fingers = person(i, 1)
        delta.add(i, i, encounter_form(fingers[:2] if i == 7 else fingers, (), None))
    probe = encounter_form(person(100, 1), (), None)
    evidence = np.array([9, 9, 9, 9, 9, 0.2, 2, 0.2], dtype=np.float32)
    named = Snapshot([delta.segment()], None)._by_fingers(probe.fingers, evidence, frozenset())
    assert sorted(named) == [0, 1, 2, 3, 4, 6, 7]


def test_whoever_stands_out_is_looked_for_once_where_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    highest = search._highest

    def counted(standing: np.ndarray, above: float, most: int) -> np.ndarray:
        passes.append(most)
        return highest(standing, above, most)

    monkeypatch.setattr(search, "_highest", counted)
    standing = np.zeros(20_000, dtype=np.float32)
    standing[[7, 9000, 19_999]] = 3, 5, 4
    one_each = people(range(20_000))
    assert list(one_each._standing_out(standing, 0.0, 5, frozenset())) == [9000, 19_999, 7]
    assert passes == [20]
    # many of one subject: it looks further
    passes.clear()
    standing[:1000] = 6
    much_of_one = people([0] * 1000 + list(range(1000, 20_000)))
    assert list(much_of_one._standing_out(standing, 0.0, 5, frozenset())) == [0, 9000, 19_999]
    assert passes == [20, 320, 5120]
