"""What every gallery does, whatever it is built on; an implementation is added to `make`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path

import pytest

from benchmarks.milvus_server import MilvusServer
from capture.sample import EyePosition
from capture.sample import FingerPosition as Finger
from matching import milvus_gallery, search
from matching.encounter import EncounterForm, encounter_form
from matching.face.comparison import FaceForm
from matching.gallery import Gallery, Params
from tests.bodies import body
from tests.milvus import PromptGallery, emptied
from tests.prints import at, thin

PEOPLE = 48  # more than a shortlist
TINY = Params(sealed=7, largest=100)  # many small segments, merged all the time

AnyGallery = Gallery | PromptGallery
Maker = Callable[[Path], AnyGallery]
EMBEDDED: dict[str, Maker] = {
    "in memory": lambda folder: Gallery(),
    "in small segments": lambda folder: Gallery(params=TINY),
    "on disk": lambda folder: Gallery(folder / "gallery", params=TINY),
}


@pytest.fixture(params=[*EMBEDDED, "milvus"])
def make(request: pytest.FixtureRequest) -> Maker:
    """Makes empty galleries."""
    if request.param == "milvus":
        server: MilvusServer = request.getfixturevalue("milvus")
        return lambda folder: emptied(PromptGallery(server, "contract"))
    return EMBEDDED[request.param]


@pytest.fixture
def gallery(make: Maker, tmp_path: Path) -> Iterator[AnyGallery]:
    """Person i is subject 100 + i with encounter i."""
    made = make(tmp_path)
    for i in range(PEOPLE):
        made.add(i, 100 + i, shown(i))
    yield made
    made.close()


@cache
def shown(number: int, seed: int = 0) -> EncounterForm:
    """Person `number`, again with a seed."""
    one = body(number) if seed == 0 else body(number).again(seed)
    return encounter_form(one.fingers, one.irises, one.face)


def found(gallery: AnyGallery, form: EncounterForm) -> int:
    """Key of the best match."""
    return gallery.search(form)[0].key


def test_everybody_is_found_by_each_modality(gallery: AnyGallery) -> None:
    assert len(gallery) == PEOPLE
    for i in range(0, PEOPLE, 5):
        again = shown(i, 3)
        parts = [
            again,
            EncounterForm(again.fingers),
            EncounterForm((), again.irises),
            EncounterForm((), (), again.face),
        ]
        for part in parts:
            best, *others = gallery.search(part)
            assert (best.key, best.subject) == (i, 100 + i)
            assert [m.comparison.llr for m in others] == sorted(
                (m.comparison.llr for m in others), reverse=True
            )
            assert best.comparison == gallery.search_exhaustively(part)[0].comparison


def test_an_exhaustive_search_compares_everybody(gallery: AnyGallery) -> None:
    everybody = gallery.search_exhaustively(shown(5, 3), exclude={103})
    assert sorted(match.subject for match in everybody) == [100 + i for i in range(PEOPLE) if i != 3]


def test_several_probes_find_what_each_finds(gallery: AnyGallery) -> None:
    probes = [shown(i, 3) for i in range(5)] + [EncounterForm(shown(7, 3).fingers), EncounterForm()]
    assert gallery.search_many(probes) == [gallery.search(probe) for probe in probes]
    assert gallery.search_many([]) == []


def test_what_is_added_and_removed_shows_at_once(gallery: AnyGallery) -> None:
    for i in range(PEOPLE, PEOPLE + 8):
        gallery.add(i, i, shown(i))
        assert found(gallery, shown(i, 2)) == i
        gallery.remove(i)
        assert i not in gallery
        assert i not in [match.key for match in gallery.search(shown(i, 2))]
        gallery.add(i, i, shown(i))
    for i in range(0, PEOPLE, 6):
        gallery.remove(i)
        assert i not in [match.key for match in gallery.search(shown(i, 2))]
    for i in range(PEOPLE + 8):
        assert (i in gallery) == (i >= PEOPLE or i % 6 > 0)
    assert len(gallery) == PEOPLE // 6 * 5 + 8


def test_a_key_moves_to_another_subject(gallery: AnyGallery) -> None:
    gallery.remove(4)
    gallery.add(4, 999, shown(4))
    best = gallery.search(shown(4, 2))[0]
    assert (best.key, best.subject) == (4, 999)
    assert gallery.subject_keys(104) == ()
    assert gallery.subject_keys(999) == (4,)


def test_a_subject_has_several_encounters(gallery: AnyGallery) -> None:
    gallery.add(1002, 102, shown(2, 7))
    gallery.add(1001, 102, shown(2, 8))
    assert gallery.subject_keys(102) == (2, 1002, 1001)
    matches = gallery.search(shown(2, 9))
    assert [match.subject for match in matches].count(102) == 1
    assert matches[0].subject == 102
    gallery.remove(1002)
    assert gallery.subject_keys(102) == (2, 1001)


def test_excluded_subjects_are_not_found(gallery: AnyGallery) -> None:
    matches = gallery.search(shown(3, 2), exclude={103, 104})
    assert {103, 104}.isdisjoint(match.subject for match in matches)
    assert len(matches) >= 3


def test_what_cannot_be_added_changes_nothing(gallery: AnyGallery) -> None:
    with pytest.raises(ValueError, match="already"):
        gallery.add(0, 5, shown(70))
    short = FaceForm(shown(0).face.vector[:64], shown(0).face.embedder, 50)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="64 values"):
        gallery.add(70, 170, EncounterForm(shown(70).fingers, (), short))
    with pytest.raises(KeyError):
        gallery.remove(70)
    with pytest.raises(KeyError):
        gallery.form(70)
    assert 70 not in gallery
    assert len(gallery) == PEOPLE
    assert found(gallery, shown(0, 2)) == 0


def test_forms_come_back(gallery: AnyGallery) -> None:
    for key in (0, 11, PEOPLE - 1):
        kept, given = gallery.form(key), shown(key)
        assert [finger.native for finger in kept.fingers] == [finger.native for finger in given.fingers]
        for a, b in zip(kept.irises, given.irises, strict=True):
            assert (a.eye, a.coder, a.quality) == (b.eye, b.coder, b.quality)
            assert (a.code == b.code).all()
            assert (a.mask == b.mask).all()
        assert kept.face is not None
        assert given.face is not None
        assert (kept.face.vector == given.face.vector).all()


def test_swapped_and_unknown_positions_are_found(gallery: AnyGallery) -> None:
    again = body(9).again(4)
    swapped = encounter_form([at(f, f.position.other_hand) for f in again.fingers])
    unknown = encounter_form([at(f, Finger.UNKNOWN) for f in again.fingers[:2]])
    eyes = EncounterForm((), tuple(replace(i, eye=i.eye.other) for i in shown(9, 4).irises))
    any_eye = EncounterForm((), (replace(shown(9, 4).irises[0], eye=EyePosition.UNKNOWN),))
    for probe in (swapped, unknown, eyes, any_eye):
        assert found(gallery, probe) == 9
    gallery.remove(9)
    gallery.add(900, 109, EncounterForm(unknown.fingers, any_eye.irises))
    for probe in (EncounterForm(shown(9).fingers), EncounterForm((), shown(9).irises)):
        assert found(gallery, probe) == 900


def test_a_larger_gallery_has_more_compared(gallery: AnyGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as `how_many` says, whatever they are asked of."""
    anybody = replace(search.PARAMS, least_evidence=-inf, least_likeness=-inf)
    monkeypatch.setattr(search, "PARAMS", replace(anybody, fingers=2, fingers_up_to=6, growth=1.0))
    monkeypatch.setattr(milvus_gallery, "PARAMS", replace(milvus_gallery.PARAMS, fingers=1))
    for i in (3, 40):
        probe = EncounterForm(shown(i, 3).fingers)
        matches = gallery.search(probe)
        assert len(matches) == search.how_many(4, PEOPLE) == 16
        assert matches[0] == gallery.search_exhaustively(probe)[0]


def test_the_likest_of_the_thin_are_compared(gallery: AnyGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there were before them."""
    for i in range(50, 68):
        gallery.add(i, 100 + i, encounter_form([thin(body(i).fingers[1])]))
    monkeypatch.setattr(search, "PARAMS", replace(search.PARAMS, fingers=2, most_thin=5))
    monkeypatch.setattr(milvus_gallery, "PARAMS", replace(milvus_gallery.PARAMS, fingers=1))
    for i in (67, 66, 63, 55):  # whom what is left of the finger tells
        probe = EncounterForm(shown(i, 3).fingers)
        assert gallery.search(probe)[0] == gallery.search_exhaustively(probe)[0]
    gallery.remove(67)
    assert 167 not in [match.subject for match in gallery.search(EncounterForm(shown(67, 3).fingers))]


def test_held_attempts_hide_nobody(gallery: AnyGallery) -> None:
    """Many held encounters of one person, each a subject of its own, leave room for who it is."""
    for n in range(60):
        gallery.add(2000 + n, -2000 - n, shown(6, 20 + n))
    subjects = [match.subject for match in gallery.search(EncounterForm(shown(6, 3).fingers))]
    assert 106 in subjects
    assert 0 < sum(subject < 0 for subject in subjects) <= 5


def test_few_people_are_all_compared(make: Maker, tmp_path: Path) -> None:
    gallery = make(tmp_path)
    assert gallery.search(shown(0)) == []
    for i in range(20):
        gallery.add(i, i, EncounterForm((), (), shown(i).face) if i == 4 else EncounterForm(shown(i).fingers))
    assert len(gallery.search(EncounterForm((), shown(0).irises))) == 20
    gallery.close()


def test_it_comes_back_as_it_was(gallery: AnyGallery, tmp_path: Path) -> None:
    gallery.remove(7)
    gallery.watermark = 77
    gallery.save(tmp_path / "gallery")
    found_before = [gallery.search(shown(i, 3)) for i in (0, 7, 33)]
    gallery.close()
    loaded = gallery.again() if isinstance(gallery, PromptGallery) else Gallery.load(tmp_path / "gallery")
    assert (len(loaded), loaded.watermark) == (PEOPLE - 1, 77)
    assert [loaded.search(shown(i, 3)) for i in (0, 7, 33)] == found_before
    loaded.add(7, 107, shown(7))
    assert found(loaded, shown(7, 2)) == 7
