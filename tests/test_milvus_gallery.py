"""What is true of a gallery on a Milvus server only; `test_gallery_contract` has what every gallery does."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import MilvusClient

from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.milvus_server import MilvusServer
from capture.iris.template import GROUP_WORDS
from matching import milvus_gallery, milvus_rows, search
from matching.encounter import EncounterForm, encounter_form
from matching.errors import GalleryDamaged, GalleryUnavailable
from matching.milvus_gallery import MilvusGallery
from matching.milvus_rows import IRIS_BITS, Rows, asked, doubled, surplus
from rekam.v1 import enrollment_pb2_grpc, identification_pb2, types_pb2
from tests.bodies import body
from tests.milvus import KeptGallery, PromptGallery, emptied
from tests.prints import thin
from tests.service import fingers, recorded, refused, running
from tests.test_gallery_contract import shown

PEOPLE = 30
EACH = {"encounters": 1, "fingers": 4, "irises": 2}  # rows of one of `shown`


@pytest.fixture
def gallery(milvus: MilvusServer) -> Iterator[PromptGallery]:
    """Person i is subject 100 + i with encounter i, all of it in Milvus; the watermark is 30."""
    made = emptied(PromptGallery(milvus, "own"))
    for i in range(PEOPLE):
        made.add(i, 100 + i, shown(i))
    made.watermark = PEOPLE
    made.flush()
    yield made
    made.close()


def kept_back(gallery: PromptGallery) -> KeptGallery:
    """Another gallery over the same rows, that keeps back what readers may not see yet."""
    return KeptGallery(gallery.server, gallery.prefix, gallery.kept)


def rows_of(gallery: KeptGallery) -> dict[str, int]:
    """Rows of each collection of encounters, the watermark's left out."""
    rows = Rows(gallery.server.uri, "", gallery.prefix, strong_for=inf, seconds=60)
    try:
        rows.prepare()
        counts = {kind: rows.count(kind) for kind in EACH}
    finally:
        rows.close()
    return counts | {"encounters": counts["encounters"] - 1}


def of(people: int) -> dict[str, int]:
    return {kind: each * people for kind, each in EACH.items()}


def found(gallery: KeptGallery, number: int) -> int:
    return gallery.search(shown(number, 3))[0].key


def abandon(gallery: KeptGallery) -> None:
    """As if its process had ended."""
    gallery._stop.set()
    gallery._wake.set()
    gallery._writer.join()
    gallery._rows.close()


words = st.integers(0, 2**64 - 1)
codes = st.lists(words, min_size=GROUP_WORDS, max_size=GROUP_WORDS).map(
    lambda w: np.array(w, dtype=np.uint64)
)


@given(codes, codes, codes, codes)
@settings(deadline=None, max_examples=50)
def test_a_plain_distance_is_that_within_both_masks(
    code: milvus_rows.Words, mask: milvus_rows.Words, other: milvus_rows.Words, other_mask: milvus_rows.Words
) -> None:
    def ones(word: milvus_rows.Words) -> int:
        return int(np.bitwise_count(word).sum())

    query = np.frombuffer(asked(code, mask), dtype=np.uint64)
    row = doubled(other, other_mask)
    both = mask & other_mask
    differing = ones((code ^ other) & both)
    # of bits valid in neither code every other one counts 2, the rest 0: as one each, in the mean
    neither = ~mask & ~other_mask
    uneven = ones(neither & np.uint64(0xAAAA_AAAA_AAAA_AAAA)) - ones(
        neither & np.uint64(0x5555_5555_5555_5555)
    )
    assert surplus(ones(query ^ row)) == ones(both) - 2 * differing - uneven
    # and it comes back
    first, second = row[:GROUP_WORDS], row[GROUP_WORDS:]
    np.testing.assert_array_equal(first & second, other & other_mask)
    np.testing.assert_array_equal(~(first ^ second), other_mask)
    assert len(row) * 64 == IRIS_BITS


def test_what_is_kept_back_is_found_and_what_is_removed_is_not(
    gallery: PromptGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches meet every change at once, while changes leave memory for Milvus behind them."""
    monkeypatch.setattr(
        milvus_gallery, "PARAMS", replace(milvus_gallery.PARAMS, seen_after=1.0, written_after=0.02)
    )
    made = kept_back(gallery)
    removed = set()
    in_milvus_alone = 0
    for i in range(PEOPLE, PEOPLE + 40):
        made.add(i, 100 + i, shown(i))
        assert found(made, i) == i
        if i % 4 == 0:
            made.remove(i - 3)
            removed.add(i - 3)
            assert found(made, i - 3) != i - 3
        old = i - 20
        in_milvus_alone += old >= PEOPLE and all(delta.row(old) is None for delta in made._deltas())
        assert (found(made, old) == old) == (old not in removed)
        time.sleep(0.03)
    assert in_milvus_alone > 5  # or the hand-over was not tested
    made.close()
    assert rows_of(made) == of(len(made)) == of(PEOPLE + 30)


def test_nothing_acknowledged_is_lost_when_milvus_is_killed(gallery: PromptGallery) -> None:
    made = kept_back(gallery)
    server = gallery.server
    stop = threading.Event()
    added: list[int] = []

    def keep_adding() -> None:
        for i in range(PEOPLE, PEOPLE + 400):
            if stop.is_set():
                return
            made.add(i, 100 + i, shown(PEOPLE + i % 30))
            added.append(i)
            time.sleep(0.01)

    adding = threading.Thread(target=keep_adding)
    adding.start()
    while len(added) < 40:
        time.sleep(0.01)
    server.kill()
    # 1. Searches are refused, changes are taken, decisions can be made.
    began = time.monotonic()
    with pytest.raises(GalleryUnavailable, match="Milvus"):
        made.search(shown(3, 3))
    assert time.monotonic() - began < 2 * milvus_gallery.PARAMS.call_seconds
    made.remove(5)
    assert made.subject_keys(103) == (3,)
    stop.set()
    adding.join()
    with pytest.raises(GalleryUnavailable):
        made.flush()
    # 2. It comes back; nobody starts anything anew but the server.
    server.start()
    made.flush()
    assert len(made) == PEOPLE + len(added) - 1
    assert rows_of(made) == of(len(made))
    assert found(made, 3) == 3
    assert found(made, 5) != 5
    made.close()
    # 3. Another process finds the same, from Milvus alone.
    again = PromptGallery(server, gallery.prefix, gallery.kept)
    assert len(again) == len(made)
    assert all(key in again for key in added)
    assert found(again, PEOPLE) in {i for i in added if i % 30 == 0}
    again.close()


def test_a_process_that_dies_while_it_writes_repeats_what_it_must(
    gallery: PromptGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an encounter in Milvus, or half of a removal, is noticed: its key is there."""

    def dies(*_: object) -> None:
        raise GalleryUnavailable("the power is off")

    # nothing is written but by this test
    monkeypatch.setattr(milvus_gallery, "PARAMS", replace(milvus_gallery.PARAMS, written_after=600))
    for half in ("_insert_fingers", "_insert_irises"):
        dying = gallery.again()
        dying.add(50, 150, shown(50))
        dying.watermark = PEOPLE + 1
        with monkeypatch.context() as patched:
            patched.setattr(Rows, half, dies)
            with pytest.raises(GalleryUnavailable):
                dying.flush()
        abandon(dying)
        again = gallery.again()
        assert again.watermark == PEOPLE
        assert 50 in again
        # the change is repeated, as the index does it
        again.remove(50)
        again.add(50, 150, shown(50))
        again.watermark = PEOPLE + 1
        assert found(again, 50) == 50
        assert rows_of(again) == of(PEOPLE + 1)
        again.remove(50)
        again.watermark = PEOPLE
        again.close()
    dying = gallery.again()
    dying.remove(4)
    with monkeypatch.context() as patched:
        patched.setattr(Rows, "_delete_encounters", dies)
        with pytest.raises(GalleryUnavailable):
            dying.flush()
    abandon(dying)
    again = gallery.again()
    assert 4 in again
    again.remove(4)
    again.close()
    assert rows_of(gallery) == of(PEOPLE - 1)


def test_a_restart_right_after_a_change_misses_nothing(gallery: PromptGallery) -> None:
    for i in range(PEOPLE, PEOPLE + 5):
        made = kept_back(gallery)
        made.add(i, 100 + i, shown(i))
        made.close()
        again = kept_back(gallery)
        assert found(again, i) == i
        again.close()


def test_codes_of_the_thin_are_there_after_a_restart(
    gallery: PromptGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(50, 68):
        gallery.add(i, 100 + i, encounter_form([thin(body(i).fingers[1])]))
    gallery.remove(60)
    monkeypatch.setattr(search, "PARAMS", replace(search.PARAMS, fingers=2, most_thin=5))
    monkeypatch.setattr(milvus_gallery, "PARAMS", replace(milvus_gallery.PARAMS, fingers=1))
    probes = [EncounterForm(shown(i, 3).fingers) for i in (67, 66, 3)]
    before = [gallery.search(probe) for probe in probes]
    assert [matches[0].key for matches in before] == [67, 66, 3]
    again = gallery.again()
    assert [again.search(probe) for probe in probes] == before
    again.close()


def test_rows_of_another_version_are_refused_and_made_anew(
    gallery: PromptGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of another gallery is, whose prefix begins with this one's."""
    client = MilvusClient(uri=gallery.server.uri)
    others = {f"{gallery.prefix}_{name}" for name in ("2_fingers", "faces_2_irises", "fingers_faces_ab")}
    for name in others:
        client.create_collection(name, dimension=8)
    monkeypatch.setattr(milvus_rows, "_FORMAT", 0)
    with pytest.raises(GalleryDamaged, match="another version"):
        gallery.again()
    monkeypatch.undo()
    anew = MilvusGallery(gallery.server.uri, gallery.kept.get, prefix=gallery.prefix, anew=True)
    assert (len(anew), anew.watermark, anew.history) == (0, 0, "")
    anew.close()
    assert others <= set(client.list_collections())
    for name in others:
        client.drop_collection(name)
    client.close()


def test_held_attempts_hide_nobody_however_few_are_asked_for(
    gallery: PromptGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(milvus_gallery.PARAMS, near_irises=8, near_faces=8, fingers=4, irises=8)
    monkeypatch.setattr(milvus_gallery, "PARAMS", few)
    monkeypatch.setattr(search, "PARAMS", replace(search.PARAMS, fingers=4, ranked=(4, 4, 4, 4)))
    for n in range(20):
        gallery.add(2000 + n, -2000 - n, shown(6, 20 + n))
    again = shown(6, 3)
    for part in (EncounterForm(again.fingers), EncounterForm((), again.irises), again):
        assert 106 in [match.subject for match in gallery.search(part)]


def test_a_service_searches_in_milvus(milvus: MilvusServer, tmp_path: Path) -> None:
    there = {"gallery": "milvus", "milvus_uri": milvus.uri, "milvus_prefix": "service"}
    with running(tmp_path, **there) as service:
        for i in range(24):  # more than a shortlist
            assert service.enroll(i, fingers(i)).decision == types_pb2.DECISION_UNIQUE
        # 1. Without Milvus nobody is enrolled, and nobody is told anything wrong.
        milvus.kill()
        twice = enroll_request("twice", made_up_nik(90), again(fingers(3), 1))
        with grpc.insecure_channel(
            service.server.address
        ) as channel:  # our client would try until it is back
            enroll = enrollment_pb2_grpc.EnrollmentServiceStub(channel).Enroll
            refusal = refused(enroll, twice, grpc.StatusCode.UNAVAILABLE)
        assert refusal.reason == "GALLERY_UNAVAILABLE"
        assert service.stats().encounters_enrolled == 24
        # 2. It is back: the same request is answered, by the same service.
        milvus.start()
        answer = recorded(service.client.enrollment.Enroll(twice, timeout=60))
        assert answer.decision == types_pb2.DECISION_DUPLICATE
        assert service.stats().encounters_held == 1
    # 3. The next one finds everything there, and follows from where it was.
    with running(tmp_path, **there) as service:
        assert isinstance(service.workflow._index.gallery, MilvusGallery)
        assert len(service.workflow._index.gallery) == 25
        assert service.identify(again(fingers(5), 2)).match == identification_pb2.MATCH_YES
    # 4. Another store under the same names is another history: nobody of the first is in it.
    with running(tmp_path / "other", **there) as service:
        assert len(service.workflow._index.gallery) == 0
        assert service.enroll(3, fingers(3)).decision == types_pb2.DECISION_UNIQUE


def test_wrong_addresses_are_told(milvus: MilvusServer) -> None:
    with pytest.raises(GalleryUnavailable):
        KeptGallery(_Nowhere(), "own")  # type: ignore[arg-type]


class _Nowhere:
    uri = "http://127.0.0.1:9"
