"""Bulk import: what comes in, what is refused and told, and that a killed run goes on where it stood."""

import csv
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.synthetic_prints import finger, impression
from capture.fingerprint.template import Extractor, ExtractorChoice
from capture.formats.cbeff import (
    BdbInfo,
    BiometricType,
    Bir,
    BirInfo,
    CbeffFile,
    Patron,
    Subtype,
    write_cbeff,
)
from capture.formats.minutiae_record import RecordFormat
from capture.formats.minutiae_template import record_of
from capture.sample import EyePosition, FingerPosition
from matching.decision import Decision, Reason
from rekam.capturing import Captured, Capturing
from rekam.config import load_settings
from rekam.errors import InvalidRequest
from rekam.offline.import_records import Imported, Problems, import_records
from rekam.offline.manifest import COLUMNS, read_manifest
from rekam.recorded import sample_record
from rekam.store import DATABASE, CaseState, EncounterState, MissingRecord, SampleRecord, Store
from rekam.v1 import enrollment_pb2, identification_pb2, types_pb2
from tests.bodies import body, enroll_body
from tests.places import now
from tests.service import fingers, recorded, running

REKAM = str(Path(sys.executable).with_name("rekam"))
THUMB, INDEX = FingerPosition.RIGHT_THUMB, FingerPosition.RIGHT_INDEX


def write_manifest(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(folder: Path, record: str, nik: str, contents: Sequence[bytes]) -> list[dict[str, object]]:
    """A line for each content, which is written into a file."""
    rows: list[dict[str, object]] = []
    for number, content in enumerate(contents):
        name = f"{record}_{number}.dat"
        (folder / name).write_bytes(content)
        rows.append({"record": record, "nik": nik, "file": name})
    return rows


def person_rows(
    folder: Path, record: str, number: int, *, seed: int | None = None
) -> list[dict[str, object]]:
    """Four fingers of made-up person `number` under its NIK."""
    shown = fingers(number) if seed is None else again(fingers(number), seed)
    return rows_of(folder, record, made_up_nik(number), [one.to_bytes() for one in shown])


def imported(
    folder: Path, rows: Sequence[Mapping[str, object]], *, keep_images: bool = True
) -> tuple[Imported, list[dict[str, str]]]:
    """Import into `folder / "data"`; what came of it, and the problems told."""
    chosen = load_settings(
        data_dir=folder / "data", workers=2, keep_images=keep_images, extractor=ExtractorChoice.FAST
    )
    manifest = write_manifest(folder / "manifest.csv", rows)
    told = folder / "problems.csv"
    with (
        Store.open(chosen.data_dir) as store,
        closing(Capturing(chosen)) as capturing,
        Problems(told) as problems,
    ):
        total = import_records(store, capturing, chosen, manifest, problems, lambda read: None)
    with told.open(newline="", encoding="utf-8") as file:
        return total, list(csv.DictReader(file))


def test_imported_people_are_found_and_a_second_run_takes_nothing_in_again(tmp_path: Path) -> None:
    rows = [row for number in range(3) for row in person_rows(tmp_path, f"r{number}", number)]
    total, problems = imported(tmp_path, rows)
    assert (total, problems) == (Imported(enrolled=3), [])
    total, problems = imported(tmp_path, rows)
    assert (total, problems) == (Imported(there_already=3), [])
    with running(tmp_path / "data") as service:
        assert service.stats().encounters_enrolled == 3
        found = service.identify(again(fingers(1), 1))
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].nik == made_up_nik(1)
        # Who asks for a second NIK meets the imported record; who comes back joins it.
        double = recorded(
            service.client.enrollment.Enroll(enroll_request("d", made_up_nik(7), again(fingers(2), 2)))
        )
        assert double.decision == types_pb2.DECISION_DUPLICATE
        assert service.enroll(0, again(fingers(0), 3)).decision == types_pb2.DECISION_RETURNING


def test_an_imported_encounter_says_that_nobody_was_searched(tmp_path: Path) -> None:
    rows = person_rows(tmp_path, "a", 1)
    rows[0] |= {"birth_date": "1971-02-03", "sex": "female"}
    rows.append({"record": "a", "modality": "fingerprint", "position": "left_little", "missing": "amputated"})
    imported(tmp_path, rows)
    with Store.open(tmp_path / "data") as store:
        subject = now(store, lambda r: r.subject_by_nik(made_up_nik(1)))
        assert subject is not None
        [encounter_id] = subject.encounters
        encounter = now(store, lambda r: r.encounter(encounter_id))
    assert encounter is not None
    assert (encounter.decision, encounter.reasons) == (Decision.IMPORTED, (Reason.NOT_SEARCHED,))
    assert encounter.state is EncounterState.ENROLLED
    assert encounter.request_id == "import:a"
    assert [s.position for s in encounter.samples] == [one.position for one in fingers(1)]
    assert [s.template for s in encounter.samples] == [one.to_bytes() for one in fingers(1)]
    assert b"birth_date_differs" in encounter.evidence
    assert b"sex_differs" in encounter.evidence
    # What it has of fingers is complete: declared, or not captured. Of eyes and face nothing was said.
    assert len(encounter.missing) == 6
    assert MissingRecord(FingerPosition.LEFT_LITTLE, "amputated") in encounter.missing
    assert MissingRecord(FingerPosition.LEFT_MIDDLE, "not_captured") in encounter.missing
    with running(tmp_path / "data") as service:
        request = enrollment_pb2.GetEncounterRequest(encounter_id=encounter_id)
        shown = service.client.enrollment.GetEncounter(request, timeout=60).encounter
    assert shown.decision == types_pb2.DECISION_IMPORTED
    assert list(shown.reasons) == [types_pb2.REASON_NOT_SEARCHED]


def test_a_second_record_of_a_nik_joins_only_a_subject_it_matches(tmp_path: Path) -> None:
    rows = person_rows(tmp_path, "first", 1)
    rows += person_rows(tmp_path, "later", 1, seed=4)
    rows += rows_of(tmp_path, "swapped", made_up_nik(1), [one.to_bytes() for one in fingers(2)])
    total, problems = imported(tmp_path, rows)
    assert (total, problems) == (Imported(enrolled=1, joined=1, held=1), [])
    with Store.open(tmp_path / "data") as store:
        subject = now(store, lambda r: r.subject_by_nik(made_up_nik(1)))
        assert subject is not None
        assert len(subject.encounters) == 2
        joined = now(store, lambda r: r.encounter(subject.encounters[1]))
        [case] = now(store, lambda r: r.cases(CaseState.OPEN, None, 9))
        held = now(store, lambda r: r.encounter(case.encounter_id))
    assert joined is not None
    assert (joined.decision, joined.reasons) == (
        Decision.IMPORTED,
        (Reason.OWN_SUBJECT_MATCHES, Reason.NOT_SEARCHED),
    )
    assert held is not None
    assert (held.state, held.request_id) == (EncounterState.HELD, "import:swapped")
    assert (held.decision, held.reasons) == (
        Decision.COLLISION,
        (Reason.OWN_SUBJECT_DIFFERS, Reason.NOT_SEARCHED),
    )


def test_eyes_and_faces_come_in_too(tmp_path: Path) -> None:
    shown = body(3)
    templates = [*shown.fingers, *shown.irises, shown.face]
    rows = rows_of(tmp_path, "b", made_up_nik(3), [one.to_bytes() for one in templates if one is not None])
    total, problems = imported(tmp_path, rows)
    assert (total, problems) == (Imported(enrolled=1), [])
    with running(tmp_path / "data") as service:
        stats = service.stats()
        assert (stats.fingers, stats.irises, stats.faces) == (4, 2, 1)
        back = recorded(service.client.enrollment.Enroll(enroll_body("b", 3, body(3).again(1)), timeout=60))
        assert back.decision == types_pb2.DECISION_RETURNING


def print_file(path: Path, person: int, position: FingerPosition) -> bytes:
    Image.fromarray(impression(finger(person, position), 1)).save(path, dpi=(500, 500))
    return path.read_bytes()


@pytest.mark.parametrize("keep_images", [False, True])
def test_images_that_are_not_kept_do_not_wait_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_images: bool
) -> None:
    waited: list[bytes | None] = []

    def noted(captured: Captured, *, keep_image: bool) -> SampleRecord:
        waited.append(captured.presented.image)
        return sample_record(captured, keep_image=keep_image)

    monkeypatch.setattr("rekam.offline.import_records.sample_record", noted)
    thumb = print_file(tmp_path / "thumb.png", 1, THUMB)
    row = {"record": "a", "nik": made_up_nik(1), "file": "thumb.png", "position": "right_thumb"}
    total, _ = imported(tmp_path, [{**row, "modality": "fingerprint"}], keep_images=keep_images)
    assert total.enrolled == 1
    assert waited == [thumb if keep_images else None]


def test_images_and_cbeff_are_extracted_and_what_yields_nothing_is_left_out(tmp_path: Path) -> None:
    thumb = print_file(tmp_path / "thumb.png", 1, THUMB)
    index = print_file(tmp_path / "index.png", 1, INDEX)
    Image.new("L", (300, 400), 255).save(tmp_path / "blank.png", dpi=(500, 500))
    cbeff = CbeffFile(
        Bir(
            info=BirInfo(integrity=False),
            birs=tuple(
                Bir(
                    info=BirInfo(integrity=False),
                    bdb_info=BdbInfo(types=(BiometricType.FINGER,), subtypes=(Subtype.RIGHT, which)),
                    bdb=data,
                )
                for which, data in ((Subtype.THUMB, thumb), (Subtype.INDEX_FINGER, index))
            ),
        ),
        Patron.ISO_19785_3,
    )
    (tmp_path / "person.xml").write_bytes(write_cbeff(cbeff))
    nik = made_up_nik(1)
    rows: list[dict[str, object]] = [
        {"record": "c", "nik": nik, "file": "person.xml"},
        {
            "record": "c",
            "nik": nik,
            "file": "blank.png",
            "modality": "fingerprint",
            "position": "left thumb",
        },
    ]
    total, problems = imported(tmp_path, rows)
    assert total == Imported(enrolled=1, left_out=1)
    [problem] = problems
    assert (problem["line"], problem["record"], problem["file"]) == ("2", "c", "blank.png")
    assert problem["reason"].startswith("left out: ")
    with Store.open(tmp_path / "data") as store:
        subject = now(store, lambda r: r.subject_by_nik(nik))
        assert subject is not None
        encounter = now(store, lambda r: r.encounter(subject.encounters[0], images=True))
    assert encounter is not None
    assert [s.position for s in encounter.samples] == [THUMB, INDEX]
    assert [s.image for s in encounter.samples] == [thumb, index]
    assert {s.template[3] for s in encounter.samples} == {Extractor.FAST_1}
    assert MissingRecord(FingerPosition.LEFT_THUMB, "unreadable") in encounter.missing


def test_records_at_fault_are_refused_whole_told_and_taken_in_once_mended(tmp_path: Path) -> None:
    ours = fingers(1)[0]
    (tmp_path / "iso.fmr").write_bytes(record_of([ours], RecordFormat.ISO_2011).to_bytes())
    (tmp_path / "good.rft").write_bytes(ours.to_bytes())
    (tmp_path / "noise.png").write_bytes(b"noise")
    nik = made_up_nik(1)
    finger_of: dict[str, object] = {"modality": "fingerprint", "position": "1"}
    rows: list[dict[str, object]] = [
        {"record": "foreign", "nik": nik, "file": "iso.fmr"},
        {"record": "nik", "nik": "123", "file": "good.rft"},
        {"record": "gone", "nik": nik, "file": "good.rft"},
        {"record": "gone", "nik": nik, "file": "gone.rft"},
        {"record": "noise", "nik": nik, "file": "noise.png", **finger_of},
        {"record": "untold", "nik": nik, "file": "noise.png"},
        {"record": "twice", "nik": nik, "file": "good.rft"},
        {"record": "twice", "nik": nik, "file": "good.rft"},
        {"record": "other", "nik": nik, "file": "good.rft", "modality": "iris"},
        {"record": "both", "nik": nik, "file": "good.rft"},
        {"record": "both", "missing": "bandaged", **finger_of},
        {"record": "two niks", "nik": nik, "file": "good.rft"},
        {"record": "two niks", "nik": made_up_nik(2), "file": "good.rft"},
        {"record": "position", "nik": nik, "file": "good.rft", "modality": "iris", "position": "thumb"},
        {"record": "empty", "nik": nik},
        {"record": "", "nik": nik, "file": "good.rft"},
        {"record": "date", "nik": nik, "file": "good.rft", "birth_date": "1. 1. 1990"},
    ]
    total, problems = imported(tmp_path, rows)
    assert total == Imported(refused=13)
    reasons = {p["record"]: p["reason"] for p in problems}
    assert set(reasons) == {str(row["record"]) for row in rows}
    assert "give the image" in reasons["foreign"]
    assert "16 digits" in reasons["nik"]
    assert reasons["gone"].startswith("gone.rft: cannot be read: No such file")
    assert reasons["noise"].startswith("noise.png: the bytes are no PNG")
    assert "neither manifest nor file tells" in reasons["untold"]
    assert "more than once" in reasons["twice"]
    assert "the file holds a fingerprint, the manifest says iris" in reasons["other"]
    assert "declared missing: " in reasons["both"]
    assert "differs between the lines" in reasons["two niks"]
    assert nik not in (tmp_path / "problems.csv").read_text()

    mended = [{"record": "gone", "nik": nik, "file": "good.rft"}]
    assert imported(tmp_path, mended)[0] == Imported(enrolled=1)
    again_with_others = [{"record": "gone", "nik": nik, "file": "noise.png"}]
    total, [problem] = imported(tmp_path, again_with_others)
    assert total == Imported(refused=1)
    assert "in already, with other lines" in problem["reason"]


def test_lines_of_a_record_that_do_not_stand_together_are_told(tmp_path: Path) -> None:
    [first, second, *_] = person_rows(tmp_path, "a", 1)
    rows = [first, *person_rows(tmp_path, "b", 2), second]
    total, [problem] = imported(tmp_path, rows)
    assert total == Imported(enrolled=2, refused=1)
    assert (problem["line"], problem["record"]) == ("7", "a")
    assert "stand together" in problem["reason"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("record,nik\na,1\n", "names no column file"),
        ("record,nik,file,colour\n", "colour"),
        ("", "names no column"),
        ('record,nik,file\na,1,"unclosed\n', "line 2"),
        ("record,nik,file\na,1\n", "2 fields where the header has 3"),
        (b"record,nik,file\na,1,\xff\n", "line"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidRequest, match=told):
        list(read_manifest(path))


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n", exclude_categories=("Z", "C")))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(WORDS.filter(bool), st.lists(WORDS.filter(bool), min_size=1, max_size=4)), max_size=6)
)
def test_what_is_written_as_a_manifest_is_read(
    tmp_path_factory: pytest.TempPathFactory, given_: list[tuple[str, list[str]]]
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "m.csv"
    rows = [
        {"record": f"{n}-{record}", "nik": "n", "file": file, "modality": "iris", "position": "left"}
        for n, (record, files) in enumerate(given_)
        for file in files
    ]
    write_manifest(path, rows)
    read = list(read_manifest(path))
    assert [r.record for r in read if not r.fault] == [
        f"{n}-{record}" for n, (record, _) in enumerate(given_)
    ]
    assert [[s.file for s in r.samples] for r in read] == [files for _, files in given_]
    assert all(s.position is EyePosition.LEFT for r in read for s in r.samples)
    assert len({r.digest for r in read}) == len(read)
    assert [r.read for r in read][-1:] == ([path.stat().st_size] if rows else [])


def test_the_batch_job_finds_the_doubles_that_an_import_let_in(tmp_path: Path) -> None:
    rows = [row for number in range(4) for row in person_rows(tmp_path, f"r{number}", number)]
    double = [one.to_bytes() for one in again(fingers(2), 1)]
    rows += rows_of(tmp_path, "double", made_up_nik(9), double)
    assert imported(tmp_path, rows)[0] == Imported(enrolled=5)
    job = tmp_path / "job"
    command = [REKAM, "dedup", str(tmp_path / "data"), "--job", str(job), "--workers", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr  # there are doubles
    with (job / "members.csv").open(newline="", encoding="utf-8") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {made_up_nik(2), made_up_nik(9)}


def test_a_killed_import_goes_on_where_it_stood(tmp_path: Path) -> None:
    template = fingers(1)[0].to_bytes()
    (tmp_path / "one.rft").write_bytes(template)
    people = 1500
    rows = [{"record": f"r{n}", "nik": made_up_nik(n), "file": "one.rft"} for n in range(people)]
    manifest = write_manifest(tmp_path / "m.csv", rows)
    data = tmp_path / "data"
    problems = tmp_path / "p.csv"
    command = [REKAM, "import", str(manifest), "--data-dir", str(data), "--problems", str(problems)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not 0 < count(data) < people:
            assert process.poll() is None, "it was done before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    before = count(data)
    assert 0 < before < people
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{people - before:,} records imported" in ran.stdout
    assert f"{before:,} were in already" in ran.stdout
    with closing(sqlite3.connect(data / DATABASE)) as database:
        [[encounters, requests, subjects]] = database.execute(
            "SELECT count(*), count(DISTINCT request_id), count(DISTINCT subject_key) FROM encounter"
        )
    assert encounters == requests == subjects == people


def count(data: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{data / DATABASE}?mode=ro", uri=True)) as database:
            [[number]] = database.execute("SELECT count(*) FROM encounter")
            return int(number)
    except sqlite3.OperationalError:
        return 0  # not there yet
