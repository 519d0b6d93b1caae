import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.gallery_stress import stress
from benchmarks.population import impression, person
from capture.fingerprint.template import Extractor, FingerprintTemplate
from capture.sample import FingerPosition as Finger
from matching.encounter import Arrangement, EncounterForm, encounter_form
from matching.errors import GalleryDamaged
from matching.fingerprint.calibration import fingerprint_calibration
from matching.fingerprint.cylinders import cylinders
from matching.gallery import Gallery, Match, Params
from tests.prints import at, cut, thin

FOUR = (Finger.RIGHT_THUMB, Finger.RIGHT_INDEX, Finger.LEFT_THUMB, Finger.LEFT_INDEX)
PEOPLE = 60  # more than a shortlist, or the index would have nothing to do


def impressed(index: int, seed: int = 0) -> EncounterForm:
    rng = np.random.default_rng((index, seed))
    return encounter_form([impression(template, rng) for template in person(index, 5, FOUR)])


@pytest.fixture(scope="module")
def forms() -> list[EncounterForm]:
    return [encounter_form(person(i, 5, FOUR)) for i in range(PEOPLE)]


@pytest.fixture
def gallery(forms: list[EncounterForm]) -> Gallery:
    """Person i is subject 100 + i with encounter i; the first ten have a second one, 1000 + i."""
    made = Gallery()
    for i, form in enumerate(forms):
        made.add(i, 100 + i, form)
    for i in range(10):
        made.add(1000 + i, 100 + i, impressed(i, seed=9))
    return made


def comparable(matches: list[Match]) -> list[tuple[float, float, int]]:
    return [
        (-match.comparison.llr, -sum(share.score for share in match.comparison.shares), match.key)
        for match in matches
    ]


def test_finds_what_brute_force_finds(gallery: Gallery) -> None:
    for i in range(0, PEOPLE, 4):
        found, oracle = gallery.search(impressed(i)), gallery.search_exhaustively(impressed(i))
        assert found[0] == oracle[0]
        assert found[0].subject == 100 + i
        assert found[0].comparison.llr > 4 > found[1].comparison.llr
        assert len(found) >= 3
        assert len(oracle) == PEOPLE
        assert set(comparable(found)) <= set(comparable(oracle))
        assert comparable(found) == sorted(comparable(found))


def test_an_encounter_too_thin_for_codes_is_found(gallery: Gallery, tmp_path: Path) -> None:
    prints = person(500, 5, FOUR)
    gallery.add(2000, 700, encounter_form([thin(prints[1])]))
    gallery.save(tmp_path)
    for holder in (gallery, Gallery.load(tmp_path)):
        assert holder.search(encounter_form(prints))[0].subject == 700
        assert holder.search(encounter_form([prints[1]]))[0].subject == 700
        holder.remove(2000)
        assert 700 not in [match.subject for match in holder.search(encounter_form([prints[1]]))]


def test_one_thin_finger_among_others_is_found_by_a_probe_of_it_alone(gallery: Gallery) -> None:
    others = person(501, 5, FOUR)
    gallery.add(2001, 701, encounter_form([others[0], thin(others[1]), *others[2:]]))
    assert gallery.search(encounter_form([others[1]]))[0].subject == 701


def test_a_thin_probe_is_compared_with_many(gallery: Gallery) -> None:
    for i in (3, 30, 59):
        assert gallery.search(encounter_form([thin(person(i, 5, FOUR)[1])]))[0].subject == 100 + i


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changes_leave_it_equal_to_brute_force(forms: list[EncounterForm], data: st.DataObject) -> None:
    gallery = Gallery()
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        key = data.draw(st.integers(0, PEOPLE - 1))
        if key in held:
            gallery.remove(key)
            del held[key]
        else:
            held[key] = data.draw(st.integers(0, 5)) + 10 * key
            gallery.add(key, held[key], forms[key])
    assert len(gallery) == len(held)
    assert all((key in gallery) == (key in held) for key in range(PEOPLE))
    probe = data.draw(st.integers(0, PEOPLE - 1))
    excluded = data.draw(st.sets(st.sampled_from(sorted(held.values())), max_size=3)) if held else set()
    found = gallery.search(impressed(probe), exclude=excluded)
    oracle = gallery.search_exhaustively(impressed(probe), exclude=excluded)
    assert {match.subject for match in oracle} == set(held.values()) - excluded
    if held.get(probe) in {match.subject for match in oracle}:
        assert found[0] == oracle[0]
        assert found[0].key == probe


def test_the_best_encounter_of_a_subject_speaks_for_it(gallery: Gallery, forms: list[EncounterForm]) -> None:
    gallery.add(2000, 155, forms[3])
    assert gallery.search(forms[3])[0].comparison.llr == gallery.search(forms[3])[1].comparison.llr
    assert [match.key for match in gallery.search(forms[3])[:2]] == [3, 2000]
    assert gallery.subject_keys(155) == (55, 2000)
    assert gallery.subject_keys(3) == ()


def test_a_key_is_added_once(gallery: Gallery, forms: list[EncounterForm]) -> None:
    with pytest.raises(ValueError, match="already"):
        gallery.add(0, 100, forms[0])
    assert len(gallery) == PEOPLE + 10
    gallery.add(5000, 100, gallery.form(0))
    assert gallery.search(impressed(0))[0].key in (0, 1000, 5000)


def test_removed_and_excluded_are_not_found(gallery: Gallery) -> None:
    assert {match.subject for match in gallery.search(impressed(3), exclude={103})}.isdisjoint({103})
    gallery.remove(3)
    assert 3 not in gallery
    assert gallery.search(impressed(3))[0].key == 1003
    gallery.remove(1003)
    assert gallery.subject_keys(103) == ()
    for search in (gallery.search, gallery.search_exhaustively):
        assert all(match.subject != 103 and match.comparison.llr < 4 for match in search(impressed(3)))
    with pytest.raises(KeyError):
        gallery.remove(3)


def test_the_form_is_kept_for_comparison(gallery: Gallery, forms: list[EncounterForm]) -> None:
    for kept, given_form in zip(gallery.form(4).fingers, forms[4].fingers, strict=True):
        assert kept.position is given_form.position
        as_kept = FingerprintTemplate.from_bytes(given_form.native)
        np.testing.assert_array_equal(kept.cylinders.bits, cylinders(as_kept).bits)


def test_swapped_hands_are_found_and_noticed(gallery: Gallery) -> None:
    rng = np.random.default_rng(1)
    for i in (12, 25):
        swapped = [at(impression(t, rng), t.position.other_hand) for t in person(i, 5, FOUR)]
        best = gallery.search(encounter_form(swapped))[0]
        assert best.subject == 100 + i
        assert best.comparison.arrangement is Arrangement.HANDS_SWAPPED


def test_unknown_positions_are_found_on_both_sides(gallery: Gallery) -> None:
    rng = np.random.default_rng(1)
    unknown = encounter_form([at(impression(t, rng), Finger.UNKNOWN) for t in person(30, 5, FOUR)[:2]])
    best = gallery.search(unknown)[0]
    assert best.subject == 130
    assert best.comparison.arrangement is Arrangement.REARRANGED
    gallery.remove(30)
    gallery.add(3000, 130, unknown)
    assert gallery.search(impressed(30))[0].key == 3000


def test_poor_probes_find_nobody(gallery: Gallery) -> None:
    assert gallery.search(encounter_form(())) == []
    empty = encounter_form([cut(template, 0) for template in person(1, 5, FOUR)])
    assert all(match.comparison.llr == 0 for match in gallery.search(empty))
    assert Gallery().search(impressed(0)) == []


def test_comes_back_from_disk_as_it_was(gallery: Gallery, tmp_path: Path) -> None:
    gallery.remove(7)
    gallery.watermark = 77
    gallery.save(tmp_path / "gallery")
    loaded = Gallery.load(tmp_path / "gallery")
    assert (len(loaded), loaded.watermark) == (len(gallery), 77)
    for i in (0, 7, 33):
        assert loaded.search(impressed(i)) == gallery.search(impressed(i))
    # and lives on
    loaded.add(4000, 107, impressed(7, seed=2))
    assert loaded.search(impressed(7))[0].subject == 107
    loaded.remove(33)
    assert loaded.search(impressed(33))[0].subject != 133
    loaded.save(tmp_path / "gallery")
    assert Gallery.load(tmp_path / "gallery").search(impressed(7)) == loaded.search(impressed(7))


def test_templates_of_two_extractors_live_in_one_gallery(gallery: Gallery, tmp_path: Path) -> None:
    prints = [replace(template, extractor=Extractor.FAST_1) for template in person(600, 5, FOUR)]
    gallery.add(600, 700, encounter_form(prints))
    gallery.add(601, 701, encounter_form([thin(prints[1])]))
    gallery.save(tmp_path)
    loaded = Gallery.load(tmp_path)
    probe = encounter_form([impression(t, np.random.default_rng(1)) for t in person(600, 5, FOUR)])
    together = fingerprint_calibration(Extractor.LEADER_1, Extractor.FAST_1)
    for holder in (gallery, loaded):
        best = holder.search(probe)[0]
        assert best.key == 600
        assert {share.fmr for share in best.comparison.shares} == {together.floor}
        assert {share.llr for share in best.comparison.shares} == {together.llr(1.0)}
        assert {finger.extractor for finger in holder.form(600).fingers} == {Extractor.FAST_1}
        assert {finger.extractor for finger in holder.form(3).fingers} == {Extractor.LEADER_1}


def test_an_index_of_an_older_format_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    gallery.save(tmp_path)
    manifest = tmp_path / "gallery.json"
    _, text = manifest.read_text().splitlines()
    older = text.replace('"format": 4', '"format": 3')
    assert older != text
    manifest.write_text(f"{zlib.crc32(older.encode()):08x}\n{older}\n")
    with pytest.raises(GalleryDamaged, match="another version"):
        Gallery.load(tmp_path)


def test_an_empty_gallery_comes_back(tmp_path: Path) -> None:
    Gallery().save(tmp_path)
    assert len(Gallery.load(tmp_path)) == 0


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_flip, _halve, Path.unlink])
def test_damage_is_noticed_in_every_file(
    gallery: Gallery, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    gallery.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(GalleryDamaged):
            Gallery.load(tmp_path).verify()
        path.write_bytes(whole)
    assert len(Gallery.load(tmp_path)) == len(gallery)
    with pytest.raises(GalleryDamaged):
        Gallery.load(tmp_path / "nowhere")


def test_every_byte_counts(tmp_path: Path) -> None:
    gallery = Gallery()
    for index in range(3):
        gallery.add(index, index, one_finger(index))
    gallery.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        last = len(whole) - (1 if path.suffix != ".json" else 2)  # but the end of the manifest's last line
        for place in {*range(0, last, 13), last}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            with pytest.raises(GalleryDamaged):
                Gallery.load(tmp_path).verify()
        path.write_bytes(whole)
    assert len(Gallery.load(tmp_path)) == 3


def test_a_checksum_that_was_altered_to_the_same_number_is_noticed(tmp_path: Path) -> None:
    Gallery().save(tmp_path)
    manifest = tmp_path / "gallery.json"
    manifest.write_text(" " + manifest.read_text())
    with pytest.raises(GalleryDamaged, match="checksum"):
        Gallery.load(tmp_path)


def one_finger(index: int) -> EncounterForm:
    return encounter_form(person(index, 5, FOUR[:1]))


SMALL = Params(sealed=8, largest=300)


def grown(folder: Path, people: int) -> Gallery:
    """A gallery whose owner saw one change a person, kept on disk by itself and never saved."""
    made = Gallery(folder, params=SMALL)
    for key in range(people):
        made.add(key, key, one_finger(key))
        made.watermark = key + 1
    made.close()
    return made


def test_small_segments_become_large_ones(tmp_path: Path) -> None:
    gallery = grown(tmp_path, 130)
    assert gallery.sizes().segments <= 8
    assert sorted(int(key) for segment in gallery.segments() for key in segment.keys) == list(range(130))
    assert len(list(tmp_path.glob("*.segment"))) <= 8


def test_a_crash_loses_only_what_follows_the_watermark(tmp_path: Path) -> None:
    gallery = grown(tmp_path, 60)
    for key in (3, 40, 59):
        gallery.remove(key)
        gallery.watermark += 1
    loaded = Gallery.load(tmp_path)
    assert 8 <= loaded.watermark <= 60
    assert all(key in loaded for key in range(loaded.watermark) if key not in (3, 40))
    assert len(loaded) <= loaded.watermark + 1  # sealed before its owner set it


def test_what_was_removed_leaves_a_segment_that_has_lost_many(tmp_path: Path) -> None:
    gallery = grown(tmp_path, 40)
    native = one_finger(7).fingers[0].native
    assert any(native in path.read_bytes() for path in tmp_path.glob("*.segment"))
    for key in range(5, 12):
        gallery.remove(key)
    gallery.close()
    assert not any(native in path.read_bytes() for path in tmp_path.glob("*.segment"))
    assert not any(key in Gallery.load(tmp_path) for key in range(5, 12))


def test_a_snapshot_stays_as_it_was(tmp_path: Path) -> None:
    gallery = grown(tmp_path / "gallery", 50)
    gallery.snapshot(tmp_path / "copy")
    with pytest.raises(FileExistsError):
        gallery.snapshot(tmp_path / "copy")
    gallery.add(500, 500, one_finger(50))
    gallery.remove(2)
    gallery.save(tmp_path / "gallery")
    copy = Gallery.load(tmp_path / "copy")
    copy.verify()
    assert (len(copy), copy.watermark, 2 in copy, 500 in copy) == (50, 50, True, False)
    assert copy.search(one_finger(2))[0].key == 2
    again = Gallery.load(tmp_path / "gallery")
    assert (len(again), 2 in again, 500 in again) == (50, False, True)


def test_a_damaged_template_is_noticed_and_made_anew(tmp_path: Path) -> None:
    gallery = grown(tmp_path, 50)
    gallery.save(tmp_path)
    native = one_finger(7).fingers[0].native
    [path] = [path for path in tmp_path.glob("*.segment") if native in path.read_bytes()]
    content = bytearray(path.read_bytes())
    content[content.index(native) + 20] ^= 1
    path.write_bytes(content)
    damaged = Gallery.load(tmp_path)
    with pytest.raises(GalleryDamaged, match="template"):
        damaged.verify()
    with pytest.raises(GalleryDamaged, match="checksum"):
        _ = damaged.form(7).fingers[0].cylinders
    damaged.remove(5)  # of the same segment, as is 6, however segments were merged
    asked: list[int] = []

    def form_of(key: int) -> EncounterForm | None:
        asked.append(key)
        return None if key == 6 else one_finger(key)

    repaired = damaged.repair(form_of, threading.Event())
    assert 0 < repaired == len(asked) - 1 < 50
    assert 5 not in asked
    for holder in (damaged, Gallery.load(tmp_path)):
        holder.verify()
        assert holder.search(one_finger(7))[0].key == 7
        assert [key for key in range(50) if key not in holder] == [5, 6]
        assert len(holder) == 48


def test_a_segment_that_cannot_be_written_leaves_nothing(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as disk:
        disk.setattr("matching.arrays.os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            gallery.save(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []
    gallery.save(tmp_path / "full")
    assert len(Gallery.load(tmp_path / "full")) == len(gallery)


def test_everything_at_once(tmp_path: Path) -> None:
    ran = stress(tmp_path, 6)
    assert min(ran.done[what] for what in ("added", "removed", "searched", "snapshots", "came and went")) > 0


def test_many_threads_at_once(gallery: Gallery, forms: list[EncounterForm], tmp_path: Path) -> None:
    probes = [impressed(i) for i in range(8)]
    faults: list[BaseException] = []
    done = threading.Event()

    def change(first: int) -> None:
        try:
            for turn in range(40):
                key = first + turn % 3
                gallery.add(key, key, forms[20 + turn % 20])
                assert key in gallery
                gallery.remove(key)
        except BaseException as fault:
            faults.append(fault)

    def look(i: int) -> None:
        try:
            while not done.is_set():
                assert gallery.search(probes[i])[0].subject == 100 + i
        except BaseException as fault:
            faults.append(fault)

    def keep() -> None:
        try:
            while not done.is_set():
                gallery.save(tmp_path)
                loaded = Gallery.load(tmp_path)
                assert all(key in loaded for key in range(PEOPLE))
        except BaseException as fault:
            faults.append(fault)

    lookers = [threading.Thread(target=look, args=(i,)) for i in range(4)]
    lookers.append(threading.Thread(target=keep))
    changers = [threading.Thread(target=change, args=(10_000 + 10 * i,)) for i in range(4)]
    for thread in lookers + changers:
        thread.start()
    for thread in changers:
        thread.join(timeout=120)
    done.set()
    for thread in lookers:
        thread.join(timeout=120)
    assert not faults
    assert len(gallery) == PEOPLE + 10
