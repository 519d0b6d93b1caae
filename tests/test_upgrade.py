"""A data folder of the first release, which knew fingers only, goes on under this one."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from benchmarks.encounters import again, enroll_request, made_up_nik
from rekam.store import DATABASE
from rekam.v1 import case_pb2, enrollment_pb2, identification_pb2, types_pb2
from tests.bodies import body, enroll_body
from tests.service import fingers, recorded, running

# What evidence and answers did not have yet, by where it stands.
_NEW_IN_COMPARISON = ("irises", "eyes", "face", "fingers_llr", "irises_llr", "face_llr")
_NEW_IN_ANSWER = ("irises", "face", "missing_eyes", "missing_face")


def as_the_first_release_wrote_it(folder: Path) -> None:
    """Rewrite a database of fingers only into the schema 0001, its evidence and answers with it."""
    new, old = folder / DATABASE, folder / "old.sqlite"
    engine = create_engine(f"sqlite:///{old}")
    config = Config()
    config.set_main_option("script_location", "rekam:migrations")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
    engine.dispose()
    with closing(sqlite3.connect(old)) as database, database:
        database.create_function("without_news", 1, without_news)
        database.execute("ATTACH ? AS new", (str(new),))
        for table in ("subject", "encounter", "cases", "request", "change"):
            database.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
        database.execute("UPDATE encounter SET evidence = without_news(evidence)")
        database.execute("UPDATE request SET response = without_news(response) WHERE method = 'Enroll'")
        database.execute(
            "INSERT INTO finger SELECT encounter_seq, ordinal, position, quality, template, image_format "
            "FROM new.sample ORDER BY rowid"
        )
        database.execute(
            "INSERT INTO missing_finger SELECT encounter_seq, position, reason FROM new.missing_sample"
        )
    old.rename(new)


def without_news(data: bytes) -> bytes:
    """Evidence, or an answer with its evidence, less what is new in this release."""
    content = json.loads(data)
    for name in _NEW_IN_ANSWER:
        content.pop(name, None)
    for person in content.get("evidence", content)["candidates"]:
        for name in _NEW_IN_COMPARISON:
            del person["comparison"][name]
    return json.dumps(content).encode()


def test_a_data_folder_of_the_first_release_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "data"
    request = enroll_request("first", made_up_nik(0), fingers(0))
    with running(data) as service:
        first = recorded(service.client.enrollment.Enroll(request, timeout=60))
        service.enroll(1, fingers(1))
        held = service.enroll(2, again(fingers(0), 1))
    assert held.decision == types_pb2.DECISION_DUPLICATE
    as_the_first_release_wrote_it(data)
    (data / "index" / "gallery.json").write_text(json.dumps({"format": 1}, indent=1))

    with running(data) as service:
        assert "made by another version" in caplog.text
        # Everybody is found, every answer and every case is what it was.
        found = service.identify(again(fingers(1), 2))
        assert found.match == identification_pb2.MATCH_YES
        assert found.candidates[0].nik == made_up_nik(1)
        assert recorded(service.client.enrollment.Enroll(request, timeout=60)) == first
        get = enrollment_pb2.GetEncounterRequest(encounter_id=held.encounter_id)
        assert service.client.enrollment.GetEncounter(get).encounter == held
        case = service.client.cases.GetCase(
            case_pb2.GetCaseRequest(case_id=held.case_id, include_samples=True), timeout=60
        )
        assert [s.modality for s in case.samples] == [types_pb2.MODALITY_FINGERPRINT] * 8
        # The same people come back with eyes and face.
        back = recorded(
            service.client.enrollment.Enroll(enroll_body("back", 0, body(0).again(3)), timeout=60)
        )
        assert (back.decision, back.subject_id) == (types_pb2.DECISION_RETURNING, first.subject_id)
        stats = service.stats()
        assert (stats.fingers, stats.irises, stats.faces) == (16, 2, 1)
