"""Re-extraction: what another extractor made is made anew of kept images; all else stays."""

import csv
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.encounters import made_up_nik
from benchmarks.synthetic_prints import finger, impression
from capture.decode import decode_face_image, decode_image
from capture.face.extract import FaceExtractor
from capture.face.template import FaceTemplate
from capture.fingerprint.extract import FingerprintExtractor
from capture.fingerprint.template import Extractor, ExtractorChoice, FingerprintTemplate
from capture.sample import EyePosition, FingerPosition, Modality
from matching.decision import Decision, Reason
from rekam.capturing import Capturing
from rekam.cli import main
from rekam.config import load_settings
from rekam.offline.reextract import Kept, Reextracted, reextract
from rekam.store import ChangeKind, EncounterRecord, EncounterState, Reader, SampleRecord, Store
from rekam.v1 import identification_pb2
from tests.bodies import eye
from tests.places import now
from tests.service import fingers, running

NOON = datetime(2026, 1, 2, tzinfo=UTC)
THUMB, INDEX = FingerPosition.RIGHT_THUMB, FingerPosition.RIGHT_INDEX


def png(pixels: NDArray[np.uint8], dpi: int | None = None) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG", **({} if dpi is None else {"dpi": (dpi, dpi)}))
    return out.getvalue()


def fast(image: bytes, position: FingerPosition, ppi: float | None = None) -> SampleRecord:
    """What the fast extractor made of a print, with the image kept."""
    made = FingerprintExtractor(ExtractorChoice.FAST).extract(decode_image(image, position=position, ppi=ppi))
    assert made.template is not None
    return SampleRecord(position, made.template.to_bytes(), 77, image, "png")


def record(store: Store, number: int, samples: Sequence[SampleRecord]) -> EncounterRecord:
    with store.transaction() as t:
        key = t.add_subject(f"s-{number}", made_up_nik(number), NOON)
        t.add_encounter(
            encounter_id=f"e-{number}",
            subject_key=key,
            nik=made_up_nik(number),
            decision=Decision.UNIQUE,
            reasons=(Reason.NOBODY_MATCHES,),
            state=EncounterState.ENROLLED,
            request_id=f"r-{number}",
            created_at=NOON,
            samples=samples,
            evidence=b"evidence",
        )
        encounter = t.encounter(f"e-{number}", images=True)
    assert encounter is not None
    return encounter


def run(store: Store, *modalities: Modality) -> tuple[Reextracted, list[Kept]]:
    told: list[Kept] = []
    with closing(Capturing(load_settings(workers=2, extractor=ExtractorChoice.ACCURATE))) as capturing:
        done = reextract(
            store, capturing, modalities or list(Modality), 2, told=told.append, progress=lambda more: None
        )
    return done, told


def extractor_of(sample: SampleRecord) -> Extractor:
    return FingerprintTemplate.from_bytes(sample.template).extractor


def test_templates_of_another_extractor_are_made_anew_and_all_else_stays(tmp_path: Path) -> None:
    thumb = png(impression(finger(1, THUMB), 1), 500)
    # Its resolution was declared by the sender and is in no file: the old template tells it.
    index = np.asarray(Image.fromarray(impression(finger(1, INDEX), 1)).resize((409, 477)))
    current = replace(fingers(2)[0], extractor=Extractor.LEADER_1)
    blank = fast(thumb, THUMB)
    with Store.open(tmp_path / "data") as store:
        before = record(
            store,
            1,
            [
                fast(thumb, THUMB),
                fast(png(index), INDEX, 569),
                SampleRecord(EyePosition.LEFT, eye(1, EyePosition.LEFT).to_bytes(), 80),
            ],
        )
        record(store, 2, [SampleRecord(current.position, current.to_bytes(), 50, b"none", "png")])
        without_image = replace(blank, image=None, image_format=None)
        nothing_in_it = replace(blank, image=png(np.full((400, 400), 255, np.uint8), 500))
        damaged = replace(blank, image=b"noise")
        kept = [record(store, 3 + n, [one]) for n, one in enumerate((without_image, nothing_in_it, damaged))]

        last = now(store, Reader.last_change)
        done, told = run(store)
        assert done == Reextracted(replaced=2, without_image=1, kept=2)
        assert [one.encounter_id for one in told] == ["e-3", "e-4", "e-5"]
        assert told[0].reason == "no image was kept"
        assert "no PNG" in told[2].reason
        after = now(store, lambda r: r.encounter("e-1", images=True))
        assert after is not None
        assert [extractor_of(s) for s in after.samples[:2]] == [Extractor.LEADER_1] * 2
        made = FingerprintTemplate.from_bytes(after.samples[1].template)
        old = FingerprintTemplate.from_bytes(before.samples[1].template)
        assert (made.width, made.height, made.position) == (old.width, old.height, INDEX)
        # Nothing but the two templates is another.
        same = [
            replace(b, template=a.template) for a, b in zip(after.samples[:2], before.samples, strict=False)
        ]
        assert after == replace(before, samples=(*same, before.samples[2]))
        with store.read() as reader:
            assert [reader.encounter(one.encounter_id, images=True) for one in kept] == kept
        changes = [(c.kind, c.encounter_seq, c.subject_key) for c in now(store, lambda r: r.changes(last))]
        place = (before.seq, before.subject_key)
        assert changes == [(ChangeKind.REMOVE, *place), (ChangeKind.ADD, *place)]

        # A second run finds nothing to do but to tell what stays.
        last = now(store, Reader.last_change)
        assert run(store) == (Reextracted(without_image=1, kept=2), told)
        assert now(store, Reader.last_change) == last


def test_the_index_follows(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prints = [impression(finger(7, THUMB), n) for n in (1, 2)]
    with running(data, extractor=ExtractorChoice.FAST) as service:
        service.enroll(0, fingers(0))
        with service.workflow._store.transaction() as t:
            key = t.add_subject("s-7", made_up_nik(7), NOON)
            t.add_encounter(
                encounter_id="e-7",
                subject_key=key,
                nik=made_up_nik(7),
                decision=Decision.UNIQUE,
                reasons=(),
                state=EncounterState.ENROLLED,
                request_id="r-7",
                created_at=NOON,
                samples=[fast(png(prints[0], 500), THUMB)],
            )
    with Store.open(data) as store:
        assert run(store)[0].replaced == 1
    accurate = FingerprintExtractor().extract(decode_image(png(prints[1], 500), position=THUMB)).template
    assert accurate is not None
    with running(data) as service:
        stats = service.stats()
        assert (stats.subjects, stats.encounters_enrolled) == (2, 2)
        # The score is that of two templates of one maker now: the indexed one is the new one.
        with service.workflow._store.read() as reader:
            stored = reader.encounter("e-7")
            assert stored is not None
            [indexed] = service.workflow._index.gallery.form(stored.seq).fingers
        assert indexed.extractor is Extractor.LEADER_1
        found = service.identify([accurate])
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].subject_id == "s-7"


def test_a_face_of_a_former_network_is_embedded_anew(tmp_path: Path, development_data: Path) -> None:
    portrait = min((development_data / "face" / "lfw").rglob("*.jpg")).read_bytes()
    template = FaceExtractor().extract(decode_face_image(portrait)).template
    assert template is not None
    former = FaceTemplate(np.roll(template.vector, 1), template.quality, b"former!!")
    with Store.open(tmp_path / "data") as store:
        record(store, 1, [SampleRecord(None, former.to_bytes(), 60, portrait, "jpeg")])
        assert run(store, Modality.FINGERPRINT)[0] == Reextracted()
        assert run(store, Modality.FACE)[0] == Reextracted(replaced=1)
        after = now(store, lambda r: r.encounter("e-1"))
        assert after is not None
        assert after.samples[0].template == template.to_bytes()
        assert after.samples[0].quality == 60


def test_the_command_tells_what_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_ = replace(fast(png(impression(finger(1, THUMB), 1), 500), THUMB), image=None, image_format=None)
    with Store.open(tmp_path / "data") as store:
        record(store, 1, [print_])
    report = tmp_path / "report.csv"
    arguments = ["--data-dir", tmp_path / "data", "--report", report, "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["rekam", "reextract", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "1 stay because no image was kept" in capsys.readouterr().out
    with report.open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert list(row.values()) == ["e-1", "fingerprint", "right thumb", "no image was kept"]
