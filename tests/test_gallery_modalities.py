"""The gallery over fingers, irises and faces: whoever any of them names is found and compared in all."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.iris_scan import noise_codes
from benchmarks.population import impression, person
from capture.face.template import FaceTemplate
from capture.iris.template import IrisTemplate, rotated
from capture.sample import EyePosition, Modality
from capture.sample import FingerPosition as Finger
from matching.delta import Delta
from matching.encounter import EncounterForm, EyeArrangement, encounter_form
from matching.errors import NotCalibrated
from matching.face.comparison import FaceForm, compare_faces
from matching.face.shelf import raise_cosines
from matching.gallery import Gallery
from matching.iris.comparison import IrisForm
from matching.iris.scan import blocked, scan
from matching.iris.shelf import PARAMS as IRIS_PARAMS
from matching.iris.shelf import IrisesProbe, raise_nearness
from matching.segment import Segment, joined

TWO = (Finger.RIGHT_THUMB, Finger.LEFT_INDEX)
RIGHT, LEFT = EyePosition.RIGHT, EyePosition.LEFT
PEOPLE = 50  # more than a shortlist, or the indexes would have nothing to do
GROUPS = 2

_CALIBRATION = json.loads((files("matching.face") / "calibration.json").read_text(encoding="utf-8"))
EMBEDDER = bytes.fromhex(_CALIBRATION["pairs"][0]["embedders"][0])


@cache
def eyes(index: int, seed: int = 0) -> tuple[IrisTemplate, IrisTemplate]:
    """Right and left eye of a person; with a seed seen again, rolled and with some bits wrong."""
    codes, masks = noise_codes(2 * GROUPS, np.random.default_rng((index, 7)))
    made = []
    for eye in (RIGHT, LEFT):
        side = slice((eye - 1) * GROUPS, eye * GROUPS)
        code, mask = codes[side].ravel(), masks[side].ravel()
        if seed:
            rng = np.random.default_rng((index, seed))
            wrong = np.packbits(rng.random(64 * len(code)) < 0.06).view(np.uint64)
            code, mask = rotated((code ^ wrong) & mask, mask, int(rng.integers(-5, 6)))
        made.append(IrisTemplate(code, mask, eye, 70))
    return made[0], made[1]


def face(index: int, seed: int = 0, embedder: bytes = EMBEDDER) -> FaceTemplate:
    vector = np.random.default_rng((index, 8)).normal(size=128)
    if seed:
        vector += 0.15 * np.random.default_rng((index, 8, seed)).normal(size=128)
    return FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), 80, embedder)


@cache
def whole(index: int, seed: int = 0) -> EncounterForm:
    prints = person(index, 5, TWO)
    if seed:
        rng = np.random.default_rng((index, seed))
        prints = tuple(impression(template, rng) for template in prints)
    return encounter_form(prints, eyes(index, seed), face(index, seed))


def swapped(form: EncounterForm) -> EncounterForm:
    return EncounterForm((), tuple(replace(iris, eye=iris.eye.other) for iris in form.irises))


def unknown(form: EncounterForm) -> EncounterForm:
    return EncounterForm((), tuple(replace(iris, eye=EyePosition.UNKNOWN) for iris in form.irises))


PARTS: dict[str, Callable[[EncounterForm], EncounterForm]] = {
    "all": lambda form: form,
    "fingers": lambda form: EncounterForm(form.fingers),
    "both eyes": lambda form: EncounterForm((), form.irises),
    "right eye": lambda form: EncounterForm((), form.irises[:1]),
    "left eye": lambda form: EncounterForm((), form.irises[1:]),
    "eyes swapped": swapped,
    "eyes of unknown side": unknown,
    "face": lambda form: EncounterForm((), (), form.face),
    "left eye and face": lambda form: EncounterForm((), form.irises[1:], form.face),
    "fingers and face": lambda form: EncounterForm(form.fingers, (), form.face),
}
TELLING = [name for name in PARTS if name != "face"]


@pytest.fixture
def gallery() -> Gallery:
    """Person i is subject 100 + i, encounter i; of every fifth one only a part is enrolled."""
    made = Gallery()
    parts = list(PARTS.values())
    for i in range(PEOPLE):
        part = parts[i // 5] if i % 5 == 0 else PARTS["all"]
        made.add(i, 100 + i, part(whole(i)))
    return made


@pytest.mark.parametrize("name", PARTS)
def test_a_mate_known_by_one_modality_is_found(gallery: Gallery, name: str) -> None:
    for i in (1, 22, 48):
        probe = PARTS[name](whole(i, 3))
        found, truth = gallery.search(probe), gallery.search_exhaustively(probe)
        assert found[0] == truth[0]
        assert found[0].subject == 100 + i
        assert found[0].comparison.llr > 2
        assert all(match.comparison.llr < 2 for match in found[1:])
        assert len(found) < len(truth) == PEOPLE


def test_a_mate_enrolled_by_one_modality_is_found(gallery: Gallery) -> None:
    for number, name in enumerate(PARTS):
        if name not in ("eyes swapped", "eyes of unknown side"):
            best = gallery.search(whole(5 * number, 3))[0]
            assert (best.subject, best.comparison.llr > 2) == (100 + 5 * number, True), name
    as_enrolled = gallery.search(whole(5 * list(PARTS).index("eyes of unknown side"), 3))[0]
    assert as_enrolled.subject == 100 + 5 * list(PARTS).index("eyes of unknown side")
    exchanged = gallery.search(whole(5 * list(PARTS).index("eyes swapped"), 3))[0]
    assert exchanged.subject == 100 + 5 * list(PARTS).index("eyes swapped")
    assert exchanged.comparison.eyes is EyeArrangement.EYES_SWAPPED


def test_whom_one_modality_names_is_compared_in_all(gallery: Gallery) -> None:
    """Fingers of one person, eyes of another, face of a third: all three are met, and contradicted."""
    a, b, c = whole(11, 4), whole(12, 4), whole(13, 4)
    probe = EncounterForm(a.fingers, b.irises, c.face)
    found = {match.subject: match for match in gallery.search(probe)}
    truth = {match.subject: match for match in gallery.search_exhaustively(probe)}
    assert {111, 112, 113} <= found.keys()
    assert all(truth[subject] == match for subject, match in found.items())
    for subject in (111, 112, 113):
        compared = found[subject].comparison
        assert len(compared.shares) == 2
        assert len(compared.irises) == 2
        assert compared.face is not None
    assert Modality.FACE in found[111].comparison.conflict
    assert Modality.FACE in found[112].comparison.conflict


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changes_leave_it_equal_to_brute_force(tmp_path: Path, data: st.DataObject) -> None:
    gallery = Gallery()
    held: dict[int, tuple[int, str]] = {}
    for _ in range(data.draw(st.integers(20, 50))):
        key = data.draw(st.integers(0, PEOPLE - 1))
        if key in held:
            gallery.remove(key)
            del held[key]
        else:
            held[key] = (data.draw(st.integers(0, 3)) + 10 * key, data.draw(st.sampled_from(TELLING)))
            gallery.add(key, held[key][0], PARTS[held[key][1]](whole(key)))
    if data.draw(st.booleans()):
        gallery.save(tmp_path)
        gallery = Gallery.load(tmp_path)
        if held:
            gallery.remove(next(iter(held)))
            del held[next(iter(held))]
        if 60 not in held:
            held[60] = (600, "all")
            gallery.add(60, 600, whole(60))
    assert len(gallery) == len(held)
    for key in held:
        probe = whole(key, 3)
        found, truth = gallery.search(probe), gallery.search_exhaustively(probe)
        assert {match.subject for match in truth} == {subject for subject, _ in held.values()}
        if truth[0].comparison.llr < 2:
            continue  # prints too poor to tell anybody, as some of the population's are
        assert found[0] == truth[0]
        assert found[0].key == key


def test_the_form_comes_back_whole(gallery: Gallery, tmp_path: Path) -> None:
    gallery.save(tmp_path)
    for holder in (gallery, Gallery.load(tmp_path)):
        kept, given_form = holder.form(3), whole(3)
        for a, b in zip(kept.irises, given_form.irises, strict=True):
            assert (a.eye, a.coder, a.quality) == (b.eye, b.coder, b.quality)
            np.testing.assert_array_equal(a.code, b.code)
            np.testing.assert_array_equal(a.mask, b.mask)
        assert kept.face is not None
        assert given_form.face is not None
        np.testing.assert_array_equal(kept.face.vector, given_form.face.vector)
        assert (kept.face.embedder, kept.face.quality) == (EMBEDDER, 80)
        assert [finger.position for finger in kept.fingers] == list(TWO)


def test_lives_on_after_it_came_back(gallery: Gallery, tmp_path: Path) -> None:
    gallery.remove(7)
    gallery.watermark = 5
    gallery.save(tmp_path)
    loaded = Gallery.load(tmp_path)
    assert (len(loaded), loaded.watermark) == (PEOPLE - 1, 5)
    for i in (3, 7, 30):
        assert loaded.search(whole(i, 3)) == gallery.search(whole(i, 3))
    # 1. a removed code is found no more, an added one is, on disk as in memory
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    loaded.remove(8)
    for i in (50, 51, 52):
        loaded.add(i, 100 + i, whole(i))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    loaded.save(tmp_path)
    for holder in (loaded, Gallery.load(tmp_path)):
        for name in ("both eyes", "face"):
            assert 108 not in [match.subject for match in holder.search(PARTS[name](whole(8, 3)))][:1]
            assert holder.search(PARTS[name](whole(51, 3)))[0].subject == 151
        assert holder.search(whole(52, 3)) == loaded.search(whole(52, 3))


def test_nothing_of_a_removed_body_is_saved(gallery: Gallery, tmp_path: Path) -> None:
    def on_disk(form: EncounterForm) -> list[bool]:
        assert form.face is not None
        saved = [path.read_bytes() for path in sorted(tmp_path.glob("*.segment"))]
        words = [np.frombuffer(part[: len(part) // 8 * 8], dtype=np.uint64) for part in saved]
        scanned = [word for iris in form.irises for word in iris.code[:32] if word]
        kept = [form.face.vector.tobytes(), form.fingers[0].native, form.fingers[0].code.tobytes()]
        kept += [iris.code[32:].tobytes() for iris in form.irises]
        return [
            *(any(content in part for part in saved) for content in kept),
            bool(np.isin(scanned, np.concatenate(words)).any()),
        ]

    gallery.save(tmp_path)
    assert on_disk(whole(9)) == [True] * 6
    loaded = Gallery.load(tmp_path)
    for holder in (gallery, loaded):
        holder.remove(9)
        holder.save(tmp_path)
        assert on_disk(whole(9)) == [False] * 6
        holder.add(9, 109, whole(9))


def test_faces_of_two_embedders_live_side_by_side(gallery: Gallery) -> None:
    other = bytes(8)
    form = encounter_form(face=face(70, embedder=other))
    gallery.add(70, 170, form)
    # another embedder's faces are not compared
    assert 170 not in [match.subject for match in gallery.search(encounter_form(face=face(70, 3)))]
    # and those that nobody has calibrated are not judged
    with pytest.raises(NotCalibrated):
        gallery.search(encounter_form(face=face(70, 3, other)))
    shorter = np.zeros(64, dtype=np.float32)
    shorter[0] = 1
    with pytest.raises(ValueError, match="64 values"):
        gallery.add(71, 171, EncounterForm(whole(71).fingers, (), FaceForm(shorter, other, 50)))
    assert 71 not in gallery
    assert gallery.search(EncounterForm(whole(71, 3).fingers))[0].comparison.llr < 2


def in_segments(held: dict[int, EncounterForm], data: st.DataObject) -> tuple[Segment, list[int]]:
    """These encounters as the rows of a segment: joined of several, some of whose rows are gone."""
    deltas = [Delta()]
    for key, form in held.items():
        deltas[-1].add(key, key, form)
        if data.draw(st.integers(0, 9)) == 0:
            deltas.append(Delta())
    segments = [delta.segment() for delta in deltas]
    alive = [
        np.array([data.draw(st.integers(0, 4)) > 0 for _ in range(len(s))], dtype=bool) for s in segments
    ]
    made = joined(segments, alive)
    return made, made.keys.tolist()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_iris_shelves_find_what_brute_force_finds(data: st.DataObject) -> None:
    held: dict[int, EncounterForm] = {}
    for key in range(data.draw(st.integers(1, 40))):
        pair = encounter_form(irises=eyes(data.draw(st.integers(0, 8)), data.draw(st.integers(0, 2)))).irises
        kept = data.draw(st.sampled_from([pair, pair[:1], pair[1:], unknown(EncounterForm((), pair)).irises]))
        held[key] = EncounterForm((), kept)
    probe = encounter_form(irises=eyes(data.draw(st.integers(0, 8)), 3)).irises
    probe = data.draw(st.sampled_from([probe, probe[:1], unknown(EncounterForm((), probe)).irises]))
    segment, keys = in_segments(held, data)

    def near(a: IrisForm, others: list[IrisForm]) -> float:
        distances = [scan(a, blocked(b.code[None, :32].copy(), b.mask[None, :32].copy()))[0] for b in others]
        return max((0.5 - float(d) for d in distances if d <= np.float32(IRIS_PARAMS.farthest)), default=0.0)

    expected = np.zeros(len(keys))
    for row, key in enumerate(keys):
        irises = held[key].irises
        like = sum(near(a, [b for b in irises if a.eye == b.eye or not a.eye * b.eye]) for a in probe)
        crossed = sum(near(a, [b for b in irises if a.eye and b.eye == a.eye.other]) for a in probe)
        expected[row] = max(like, crossed)
    totals = np.zeros((2, len(keys) + 3), dtype=np.float32)
    raise_nearness(segment.irises, [IrisesProbe(()), IrisesProbe(probe)], totals, 3, len(keys))
    np.testing.assert_allclose(totals[1, 3:], expected, atol=1e-6)
    assert not totals[0].any()
    for row, key in enumerate(keys):
        for a, b in zip(segment.form(row).irises, held[key].irises, strict=True):
            np.testing.assert_array_equal(a.code, b.code)
            np.testing.assert_array_equal(a.mask, b.mask)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_face_shelves_find_what_brute_force_finds(data: st.DataObject) -> None:
    embedders = (EMBEDDER, bytes(8))
    held = {
        key: encounter_form(face=face(data.draw(st.integers(0, 8)), 1, data.draw(st.sampled_from(embedders))))
        for key in range(data.draw(st.integers(1, 40)))
    }
    probe = encounter_form(face=face(data.draw(st.integers(0, 8)), 2)).face
    assert probe is not None
    segment, keys = in_segments(held, data)
    expected = np.zeros(len(keys))
    for row, key in enumerate(keys):
        form = held[key].face
        assert form is not None
        if form.embedder == probe.embedder:
            expected[row] = 2 * compare_faces(probe, form) - 1
    totals = np.zeros((2, len(keys) + 3), dtype=np.float32)
    raise_cosines(segment.faces, [None, probe], totals, 3)
    np.testing.assert_allclose(totals[1, 3:], expected, atol=1e-6)
    for row, key in enumerate(keys):
        kept, given_face = segment.form(row).face, held[key].face
        assert kept is not None
        assert given_face is not None
        np.testing.assert_array_equal(kept.vector, given_face.vector)


def test_many_threads_at_once(gallery: Gallery, tmp_path: Path) -> None:
    probes = [whole(i, 3) for i in range(1, 5)]
    names = list(TELLING)
    faults: list[BaseException] = []
    done = threading.Event()
    added = [whole(i) for i in range(60, 70)]

    def change(first: int) -> None:
        try:
            for turn in range(30):
                gallery.add(first + turn, first + turn, PARTS[names[turn % len(names)]](added[turn % 10]))
                assert first + turn in gallery
                gallery.remove(first + turn)
        except BaseException as fault:
            faults.append(fault)

    def look(i: int) -> None:
        try:
            while not done.is_set():
                for name in TELLING:
                    assert gallery.search(PARTS[name](probes[i]))[0].subject == 101 + i
        except BaseException as fault:
            faults.append(fault)

    def keep() -> None:
        try:
            while not done.is_set():
                gallery.save(tmp_path)
                loaded = Gallery.load(tmp_path)
                assert all(key in loaded for key in range(PEOPLE))
                np.testing.assert_array_equal(loaded.form(3).irises[1].code, whole(3).irises[1].code)
        except BaseException as fault:
            faults.append(fault)

    lookers = [threading.Thread(target=look, args=(i,)) for i in range(3)]
    lookers.append(threading.Thread(target=keep))
    changers = [threading.Thread(target=change, args=(10_000 + 100 * i,)) for i in range(3)]
    for thread in lookers + changers:
        thread.start()
    for thread in changers:
        thread.join(timeout=120)
    done.set()
    for thread in lookers:
        thread.join(timeout=120)
    assert not faults
    assert len(gallery) == PEOPLE
