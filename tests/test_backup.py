"""Backup of a running service and restore: all that was acknowledged, nothing half, no stale index."""

import json
import shutil
import threading
from pathlib import Path

import grpc
import pytest

from benchmarks.encounters import again, enroll_request, made_up_nik
from matching.encounter import EncounterForm
from matching.gallery import Gallery
from rekam.backup import MANIFEST, Backups, restore
from rekam.errors import DeadlinePassed, InvalidRequest, NotWritten, StoreDamaged, WrongState
from rekam.store import DATABASE, Store
from rekam.v1 import admin_pb2, enrollment_pb2, gallery_pb2, identification_pb2, types_pb2
from tests.places import now
from tests.service import Service, fingers, recorded, refused, running

NAME = "monday"


def backed_up(service: Service, name: str = NAME) -> admin_pb2.BackupResponse:
    return service.client.admin.Backup(admin_pb2.BackupRequest(name=name), timeout=60)


def test_a_backup_while_people_are_enrolled_holds_everybody_acknowledged_before_it(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    answers: dict[int, enrollment_pb2.EnrollResponse] = {}
    finish = threading.Event()
    with running(tmp_path / "data", backup_dir=backups) as service:

        def enrol() -> None:
            for number in range(200):
                if finish.is_set():
                    return
                request = enroll_request(f"e{number}", made_up_nik(number), fingers(number))
                answers[number] = service.client.enrollment.Enroll(request, timeout=60)

        enrolling = threading.Thread(target=enrol)
        enrolling.start()
        while len(answers) < 3:
            assert enrolling.is_alive()
        before = dict(answers)
        made = backed_up(service)
        while len(answers) < len(before) + 2:  # it goes on
            assert enrolling.is_alive()
        finish.set()
        enrolling.join()
        later = recorded(answers[max(answers)])
        assert len(before) <= made.subjects < len(answers)
    assert made.folder == str(backups / NAME)
    assert {path.name for path in backups.iterdir()} == {NAME}
    assert {path.name for path in (backups / NAME).iterdir()} == {
        DATABASE,
        MANIFEST,
        "index",
        "index.opening",
    }

    made_again = restore(backups / NAME, tmp_path / "restored")
    assert made_again.manifest_digest == made.manifest_digest
    with running(tmp_path / "restored") as service:
        assert service.stats().subjects == made.subjects
        for number, answer in before.items():
            # Who asks again gets the answer from before the backup.
            request = enroll_request(f"e{number}", made_up_nik(number), fingers(number))
            assert service.client.enrollment.Enroll(request, timeout=60) == answer
        found = service.identify(again(fingers(0), 1))
        assert found.match == identification_pb2.MATCH_YES
        # Who came after it is not known, and can be enrolled.
        request_later = gallery_pb2.GetSubjectRequest(subject_id=later.subject_id)
        refused(service.client.gallery.GetSubject, request_later, grpc.StatusCode.NOT_FOUND)
        assert service.enroll(max(answers), fingers(max(answers))).decision == types_pb2.DECISION_UNIQUE


def test_what_cannot_be_backed_up_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    with running(tmp_path / "off") as service:
        refusal = refused(service.client.admin.Backup, admin_pb2.BackupRequest(name=NAME), precondition)
        assert "backup_dir" in refusal.text
    backups = tmp_path / "backups"
    with running(tmp_path / "data", backup_dir=backups) as service:
        service.enroll(0, fingers(0))
        for name in ("", "..", "../x", "a/b", ".hidden", "x" * 65, "a\nb"):
            request = admin_pb2.BackupRequest(name=name)
            assert (
                "name"
                in refused(service.client.admin.Backup, request, grpc.StatusCode.INVALID_ARGUMENT).fields
            )
        backed_up(service)
        refused(service.client.admin.Backup, admin_pb2.BackupRequest(name=NAME), precondition)
        backed_up(service, "tuesday")
    assert {path.name for path in backups.iterdir()} == {NAME, "tuesday"}


def test_a_deadline_or_a_kill_leaves_no_half_backup(tmp_path: Path) -> None:
    def gone() -> None:
        raise DeadlinePassed("too late")

    with Store.open(tmp_path / "data") as store:
        backups = Backups(store, tmp_path / "backups")
        with pytest.raises(DeadlinePassed):
            backups.make(NAME, gone)
        assert list((tmp_path / "backups").iterdir()) == []
        # What a killed process left is gone with the next one.
        (tmp_path / "backups" / ".partial-1").mkdir()
        (tmp_path / "backups" / ".partial-1" / DATABASE).write_bytes(b"half")
        backups.make(NAME, lambda: None)
        assert [path.name for path in (tmp_path / "backups").iterdir()] == [NAME]


def test_the_copy_is_stopped_inside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekam.sqlite._CHECKED_STEPS", 1000)
    with Store.open(tmp_path / "data") as store:
        with store.transaction() as t:
            for number in range(2000):
                t.remember(f"r{number}", "m", b"d" * 32, b"x" * 2000)
        calls = iter(range(3))

        def gone() -> None:
            if next(calls, None) is None:
                raise DeadlinePassed("too late")

        with pytest.raises(DeadlinePassed):
            store.copy_to(tmp_path / "copy", gone)
        store.copy_to(tmp_path / "whole", lambda: None)
        assert now(store, lambda r: r.request("r1999")) is not None


def backup_of_two(folder: Path) -> Path:
    with running(folder / "data", backup_dir=folder / "backups") as service:
        for number in range(2):
            service.enroll(number, fingers(number))
        backed_up(service)
    return folder / "backups" / NAME


def test_a_backup_that_is_not_what_was_made_is_not_restored(tmp_path: Path) -> None:
    backup = backup_of_two(tmp_path)
    whole = (backup / DATABASE).read_bytes()
    manifest = (backup / MANIFEST).read_text()
    for name, content in (
        (DATABASE, whole[:-1]),
        (DATABASE, whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]),
        (DATABASE, b""),
        (MANIFEST, b""),
        (MANIFEST, b"[]"),
        (MANIFEST, manifest.replace('"format": 1', '"format": 2').encode()),
        (MANIFEST, json.dumps(json.loads(manifest) | {"files": {}}).encode()),
        (MANIFEST, manifest.replace("index.opening", "../elsewhere").encode()),
        ("index.opening", b"another"),
        ("index/gallery.json", b""),
    ):
        kept = (backup / name).read_bytes()
        (backup / name).write_bytes(content)
        with pytest.raises(StoreDamaged):
            restore(backup, tmp_path / "restored")
        (backup / name).write_bytes(kept)
        assert not (tmp_path / "restored" / DATABASE).exists()
    (backup / DATABASE).unlink()
    with pytest.raises(StoreDamaged, match=DATABASE):
        restore(backup, tmp_path / "restored")
    (backup / DATABASE).write_bytes(whole)
    restore(backup, tmp_path / "restored")
    with pytest.raises(NotWritten, match="already"):
        restore(backup, tmp_path / "restored")
    with pytest.raises(StoreDamaged):
        restore(tmp_path, tmp_path / "elsewhere")


def test_a_restored_service_goes_on_with_the_index_of_the_backup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backup_of_two(tmp_path)
    restore(backup, tmp_path / "restored")
    assert {path.name for path in (tmp_path / "restored").iterdir()} == {DATABASE, "index", "index.opening"}
    added: list[int] = []
    add = Gallery.add

    def noted(gallery: Gallery, key: int, subject: int, form: EncounterForm) -> None:
        added.append(key)
        add(gallery, key, subject, form)

    monkeypatch.setattr(Gallery, "add", noted)
    with running(tmp_path / "empty"):
        warmed_up = len(added)  # what every start adds to try it
    with running(tmp_path / "restored") as service:
        assert len(added) == 2 * warmed_up  # nobody was added anew
        assert service.stats().subjects == 2
        assert service.identify(again(fingers(1), 1)).match == identification_pb2.MATCH_YES
        assert service.enroll(0, again(fingers(0), 1), "b").decision == types_pb2.DECISION_RETURNING
    assert "rebuilt" not in caplog.text


def test_an_index_of_another_history_is_never_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backup = backup_of_two(tmp_path)
    data = tmp_path / "data"
    with running(data) as service:  # it goes on: the index of person 2 and 3 is saved
        for number in (2, 3):
            service.enroll(number, fingers(number))
    # An operator puts the older database in its place and leaves the index; others are enrolled, and more.
    shutil.copy(backup / DATABASE, data / DATABASE)
    shutil.copytree(data / "index", tmp_path / "kept")
    marker = (data / "index.opening").read_text()
    with running(data) as service:
        assert "followed another history" in caplog.text
        for number in (4, 5, 6):
            assert service.enroll(number, fingers(number)).decision == types_pb2.DECISION_UNIQUE
    # As if it had been killed before it saved its index: by number alone, the old one fits now.
    shutil.rmtree(data / "index")
    shutil.copytree(tmp_path / "kept", data / "index")
    (data / "index.opening").write_text(marker)
    caplog.clear()
    with running(data) as service:
        assert "followed another history" in caplog.text
        assert service.identify(again(fingers(2), 1)).match == identification_pb2.MATCH_NO
        assert service.identify(again(fingers(5), 1)).match == identification_pb2.MATCH_YES
    # Its own is trusted.
    caplog.clear()
    with running(data) as service:
        assert "history" not in caplog.text
        assert service.stats().subjects == 5


def test_bad_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "data") as store:
        with pytest.raises(InvalidRequest):
            Backups(store, tmp_path / "backups").make("../x", lambda: None)
        with pytest.raises(WrongState, match="backup_dir"):
            Backups(store, None).make("x", lambda: None)
    assert not (tmp_path / "backups").exists()
