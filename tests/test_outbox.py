"""The outbox: what cannot be read or is refused holds up nobody; operators' templates; what is given up.

Devices are those of `tests/test_session.py`, which also has the encounters that are sent without trouble.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import pytest

from benchmarks.encounters import enroll_request
from benchmarks.population import TEN_FINGERS
from capture.face.template import EMBEDDER_BYTES
from devices.frame import DeviceKind
from devices.position import FingerPosition
from rekam.capturing import Template
from rekam.client import Client
from rekam.errors import SpoolDamaged, SpoolError
from rekam.exchange import MissingReason
from rekam.session import FACE, SIGNATURE, Place, Session, Taken, Verdict, entry_bytes
from rekam.station.outbox import OPERATOR, Outbox, Sync
from rekam.v1 import enrollment_pb2, types_pb2
from tests.bodies import LEFT, RIGHT, eye, face
from tests.service import fingers, running
from tests.test_session import (
    EVERYTHING,
    FINGERPRINT,
    LEFT_FOUR,
    NOW,
    RIGHT_FOUR,
    OfTemplates,
    began,
    fill,
    hands,
    opened,
    other_device,
    over,
    shown,
    slap_scanner,
)
from tests.test_spool import no_room

SIGNED = (FINGERPRINT, DeviceKind.SIGNATURE)
OPERATORS: list[Template] = [*fingers(7, TEN_FINGERS), eye(7, LEFT), eye(7, RIGHT), face(7)]


def operator_files(folder: Path) -> list[Path]:
    return list(folder.glob(f"{OPERATOR}*.spool"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def nobody() -> Client:
    return Client("127.0.0.1:1", patient=False)


def request_of(of: Session) -> enrollment_pb2.EnrollRequest:
    return enrollment_pb2.EnrollRequest.FromString(of.seal())


# What cannot be read ------------------------------------------------------------------------------------


def test_an_encounter_cut_off_before_its_beginning_holds_up_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        fill(box.begin(began("e1")), hands(0))
        spool.begin("e2")  # and the power goes, or the disk is full
        assert [one.name for one in box.states()] == ["e1"]
    with opened(tmp_path) as spool:
        assert "e2" in spool.notices[0]
        box = Outbox(spool, OfTemplates())
        assert [(one.name, one.sync) for one in box.states()] == [("e1", Sync.WAITING)]
        assert box.alike(box.resume("e1")) == ()
        with nobody() as client:
            assert [one.sync for one in box.send(client, timeout=5)] == [Sync.WAITING]


def test_what_cannot_be_read_is_named_and_the_others_are_sent(tmp_path: Path) -> None:
    with running(tmp_path / "data") as service:
        with opened(tmp_path / "spool") as spool:
            box = Outbox(spool, OfTemplates())
            fill(box.begin(began("e1", number=1)), hands(1))
            box.begin(began("e2"))
            spool.append("e2", b'{"entry": "of a later version"}')
            box.begin(began("e3"))
            no_template = Taken(FINGERPRINT, 2, b"", b"no template", 80, None, "", 1, False, NOW)
            spool.append("e3", entry_bytes(no_template))
            fill(box.begin(began("e4", number=2)), hands(2))
            flip(tmp_path / "spool" / "e1.spool")
        with opened(tmp_path / "spool") as spool:
            box = Outbox(spool, OfTemplates())
            damaged = [one for one in box.states() if one.sync is Sync.DAMAGED]
            assert [one.name for one in damaged] == ["e1", "e2", "e3"]
            assert all(one.name in one.text for one in damaged)
            for one in damaged:
                with pytest.raises(SpoolDamaged, match=one.name):
                    box.resume(one.name)
            assert box.alike(box.resume("e4")) == ()
            assert [one.sync for one in box.send(over(service.client))] == [Sync.DAMAGED] * 3 + [
                Sync.RECORDED
            ]
            for one in damaged:
                assert "may have recorded it" in box.discard(one.name).text
            assert [one.sync for one in box.states()] == [Sync.RECORDED] + [Sync.DISCARDED] * 3


# What the service refuses -------------------------------------------------------------------------------


def test_a_refused_encounter_is_opened_again_and_sent_under_the_next_id(tmp_path: Path) -> None:
    with running(tmp_path / "data", required_modalities=["fingerprint", "face"]) as service:
        with opened(tmp_path / "spool") as spool:
            box = Outbox(spool, OfTemplates())
            fill(box.begin(began("e1", number=1)), hands(1))
            [refused] = box.send(over(service.client))
            assert (refused.sync, "face" in refused.text) == (Sync.REFUSED, True)
        with opened(tmp_path / "spool") as spool:
            box = Outbox(spool, OfTemplates())
            assert box.states() == [refused]
            assert box.send(over(service.client)) == [refused]
            assert len(spool.records("e1")) == len(box.resume("e1").taken) + 3  # said twice, kept once
        with opened(tmp_path / "spool") as spool:  # that it was opened is kept too
            box = Outbox(spool, OfTemplates())
            assert [(one.sync, one.text) for one in box.states()] == [(Sync.OPEN, refused.text)]
            of = box.resume("e1")
            assert of.advice == (refused.text,)
            of.widen([DeviceKind.FACE])
            of.declare(FACE, MissingReason.UNREADABLE)
            assert request_of(of).request_id == "e1-2"
            [one] = box.send(over(service.client))
            assert (one.sync, one.decision) == (Sync.RECORDED, "UNIQUE")


def test_what_may_have_been_recorded_is_not_opened_again(tmp_path: Path) -> None:
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        # Whatever has this id on the service: this station cannot know what it is.
        service.client.enrollment.Enroll(enroll_request("e1-1", began(number=5).nik, fingers(5)), timeout=60)
        box = Outbox(spool, OfTemplates())
        fill(box.begin(began("e1", number=1)), hands(1))
        [refused] = box.send(over(service.client))
        assert refused.sync is Sync.REFUSED
        assert box.resume("e1").sealed is not None
        assert box.states() == [refused]
        assert "may have recorded it" in box.discard("e1").text


def test_an_encounter_too_large_for_the_service_holds_up_nobody(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", max_message_bytes=2**20) as service,
        opened(tmp_path / "spool") as spool,
    ):
        box = Outbox(spool, OfTemplates())
        large = box.begin(began("e1", kinds=SIGNED, number=1))
        scanner = slap_scanner(shown(hands(1)))
        while large.step is not None and large.step.kind is FINGERPRINT:
            assert large.capture(scanner).verdict is Verdict.ACCEPTED
        large.capture(other_device(DeviceKind.SIGNATURE, bytes(1_200_000)))
        large.seal()
        fill(box.begin(began("e2", number=2)), hands(2))
        refused, recorded = box.send(over(service.client))
        assert (refused.sync, recorded.decision) == (Sync.REFUSED, "UNIQUE")
        assert "larger" in refused.text
        of = box.resume("e1")  # as it is it would be refused for ever
        assert (of.sealed, of.advice) == (None, (refused.text,))
        of.discard(SIGNATURE)
        of.declare(SIGNATURE, MissingReason.NOT_CAPTURED)
        assert request_of(of).request_id == "e1-2"
        assert [one.decision for one in box.send(over(service.client))] == ["UNIQUE"]


# What no service of this version answers ----------------------------------------------------------------


@contextmanager
def answering(*answers: bytes) -> Iterator[Client]:
    """A service that gives these answers, whatever it is asked."""
    left = list(answers)
    enroll = grpc.unary_unary_rpc_method_handler(lambda request, context: left.pop(0))
    server = grpc.server(ThreadPoolExecutor(1))
    service = enrollment_pb2.DESCRIPTOR.services_by_name["EnrollmentService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Enroll": enroll}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(None).wait()


@pytest.mark.parametrize("answer", [b"", b"\x0a\x00", b"\x1a\x02\x08\x01"], ids=["empty", "no id", "newer"])
def test_what_is_no_answer_erases_nothing_and_holds_up_nobody(tmp_path: Path, answer: bytes) -> None:
    good = types_pb2.Encounter(encounter_id="x1", decision=types_pb2.DECISION_UNIQUE)
    newer = types_pb2.Encounter(encounter_id="x2", decision=cast(types_pb2.Decision.ValueType, 99))
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        for number, name in enumerate(("e1", "e2", "e3")):
            fill(box.begin(began(name, number=number)), hands(number))
        encounters = [
            enrollment_pb2.EnrollResponse(encounter=one).SerializeToString() for one in (good, newer)
        ]
        with answering(answer, *encounters) as client:
            refused, *recorded = box.send(client)
        assert (refused.sync, "does not know" in refused.text) == (Sync.REFUSED, True)
        assert [(one.encounter_id, one.decision) for one in recorded] == [("x1", "UNIQUE"), ("x2", "99")]
        assert box.resume("e1").sealed is not None
        assert box.names == ("e1",)
        with answering(encounters[0]) as client:
            assert [one.encounter_id for one in box.send(client)] == ["x1"]


def test_what_is_wanted_again_and_not_known_here_is_words(tmp_path: Path) -> None:
    items = [
        {"modality": types_pb2.MODALITY_FINGERPRINT, "position": 77, "advice": "the other one"},
        {"modality": types_pb2.MODALITY_IRIS, "eye": 9, "advice": "wider"},
        {"modality": 9, "advice": "speak"},
        {"modality": types_pb2.MODALITY_FINGERPRINT, "position": 2, "advice": "dry it"},
    ]
    again = enrollment_pb2.Recapture(items=[enrollment_pb2.RecaptureItem(**item) for item in items])  # type: ignore[arg-type]
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        fill(box.begin(began("e1")), hands(0))
        with answering(enrollment_pb2.EnrollResponse(recapture=again).SerializeToString()) as client:
            [one] = box.send(client)
        assert one.sync is Sync.REOPENED
        of = box.resume("e1")
        assert of.advice == ("the other one", "wider", "speak", "right index: dry it")
        assert of.step is not None
        assert of.open_places(of.step) == (Place(FINGERPRINT, FingerPosition.RIGHT_INDEX),)


def test_what_cannot_be_kept_on_a_full_disk_is_asked_again_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = enrollment_pb2.EnrollResponse(recapture=enrollment_pb2.Recapture()).SerializeToString()
    encounters = [
        enrollment_pb2.EnrollResponse(encounter=types_pb2.Encounter(encounter_id=name)).SerializeToString()
        for name in ("x1", "x2")
    ]
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        for number, name in enumerate(("e1", "e2")):
            fill(box.begin(began(name, number=number)), hands(number))
        no_room(tmp_path, monkeypatch)
        with answering(again, encounters[1]) as client:
            waiting, recorded = box.send(client)
        assert (waiting.sync, "No space" in waiting.text) == (Sync.WAITING, True)
        assert recorded.encounter_id == "x2"
        with answering(encounters[0]) as client:
            assert [one.encounter_id for one in box.send(client)] == ["x1"]
        assert box.names == ()


# Giving up ----------------------------------------------------------------------------------------------


def test_giving_up_says_whether_the_service_may_have_recorded_it(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        box.begin(began("e1"))
        fill(box.begin(began("e2")), hands(0))
        fill(box.begin(began("e3")), hands(0))
        box.resume("e3").refuse("INVALID_ARGUMENT: no", void=True)
        said = [box.discard(name).text for name in ("e1", "e2", "e3")]
        assert said == ["", "the service may have recorded it", ""]
        assert [one.text for one in box.states()] == said
        box.enrol_operator("Sari", OPERATORS)
        for name in ("e1", "e4", operator_files(tmp_path)[0].stem):
            with pytest.raises(SpoolError, match="no encounter"):
                box.discard(name)


# The operators' own -------------------------------------------------------------------------------------


def test_any_operators_own_are_refused_each_replaced_and_forgotten_alone(tmp_path: Path) -> None:
    index = Place(FINGERPRINT, FingerPosition.RIGHT_INDEX)
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        box.enrol_operator("Budi", fingers(8))
        box.enrol_operator("Sari", fingers(6))
        [*_, before] = sorted(operator_files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        box.enrol_operator("SARI ", OPERATORS)  # as an operator may write it
        assert not before.exists()
        assert len(operator_files(tmp_path)) == 2
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        assert box.states() == []
        of = box.begin(began("e1"))  # by Sari
        assert of.capture(slap_scanner(shown(hands(7)))).verdict is Verdict.OPERATOR
        assert of.capture(slap_scanner(shown(hands(9)))).verdict is Verdict.ACCEPTED
        assert index in of.taken
        by_budi = box.begin(replace(began("e2"), operator="Budi"))
        assert by_budi.capture(slap_scanner(shown(hands(7)))).verdict is Verdict.OPERATOR  # Sari's
        box.forget_operator("Sari")
        assert box.resume("e2").capture(slap_scanner(shown(hands(7)))).verdict is Verdict.ACCEPTED
        assert len(operator_files(tmp_path)) == 1
        assert box.operator("Sari") == ()
        assert len(box.operator("Budi")) == len(fingers(8))
        with pytest.raises(SpoolError, match="operator Sari"):
            box.forget_operator("Sari")
        assert [one.name for one in box.states()] == ["e1", "e2"]
        # Enrolled anew after that.
        box.enrol_operator("Sari", fingers(6))
        assert len(box.operator("Sari")) == len(fingers(6))


def test_what_is_not_known_of_the_operator_is_said(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        of = box.begin(began("e1", kinds=EVERYTHING))
        assert "operator Sari" in box.operator_warning(of)
        assert box.operator_warning(of).endswith(": fingerprint, iris, face")
        box.enrol_operator("Sari", [OPERATORS[0], OPERATORS[-2]])
        left = ", ".join(finger.words for finger in (*RIGHT_FOUR, *LEFT_FOUR, FingerPosition.LEFT_THUMB))
        assert box.operator_warning(of).endswith(f": {left}, left eye, face")  # one finger is not all
        box.enrol_operator("Sari", [*OPERATORS[:-1], replace(face(7), embedder=bytes(EMBEDDER_BYTES))])
        assert box.operator_warning(of).endswith(": face")  # another network's face compares with none
        box.enrol_operator("Sari", OPERATORS)
        assert box.operator_warning(of) == ""


@pytest.mark.parametrize("how", ["flipped", "of another version"])
def test_a_colleague_whose_templates_cannot_be_read_is_said(tmp_path: Path, how: str) -> None:
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        box.enrol_operator("Bob", fingers(8))
        [file] = operator_files(tmp_path)
        if how != "flipped":
            spool.settle(file.stem, "")
            spool.begin(name := f"{file.stem[:-1]}z")
            spool.append(name, b'[["fingerprint", 2, "00"]]')
        box.enrol_operator("Sari", OPERATORS)
    if how == "flipped":
        flip(file)
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        of = box.begin(began("e1"))  # by Sari, all of whose own are known
        assert box.operator_warning(of).startswith("of 1 of the operators kept here nothing can be read")
        box.enrol_operator("Bob", fingers(8))
        assert box.operator_warning(of) == ""


def test_who_takes_over_is_who_the_warning_and_the_outcome_name(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        box.enrol_operator("Sari", OPERATORS)
        of = box.begin(replace(began("e1", number=1), card=True))
        assert of.capture(slap_scanner(shown(hands(1)))).verdict is Verdict.ACCEPTED
        assert box.operator_warning(of) == ""
    with running(tmp_path / "data") as service, opened(tmp_path / "spool") as spool:
        box = Outbox(spool, OfTemplates())
        of = box.resume("e1", "Budi")
        assert "operator Budi" in box.operator_warning(of)
        box.enrol_operator("Budi", fingers(8, TEN_FINGERS))
        of = box.resume("e1", "Budi")
        assert of.capture(slap_scanner(shown(hands(7)))).verdict is Verdict.OPERATOR  # who began it
        assert of.capture(slap_scanner(shown(hands(8)))).verdict is Verdict.OPERATOR  # who goes on with it
        while of.step is not None:
            assert of.capture(slap_scanner(shown(hands(1)))).verdict is Verdict.ACCEPTED
        of.keep_holder("nothing to compare", overruled=True)
        of.seal()
        [one] = box.send(over(service.client))
        assert (one.sync, one.operator) == (Sync.RECORDED, "Budi")
        assert one.holder == "nothing to compare, overruled by the operator"
    with opened(tmp_path / "spool") as spool:  # all that is left of it here
        assert Outbox(spool, OfTemplates()).states() == [one]


@pytest.mark.parametrize("how", ["flipped", "of another version"])
def test_operators_templates_that_cannot_be_read_stop_nothing_and_are_replaced(
    tmp_path: Path, how: str
) -> None:
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        box.enrol_operator("Sari", OPERATORS)
        [file] = operator_files(tmp_path)
        if how != "flipped":
            spool.settle(file.stem, "")
            spool.begin(name := f"{file.stem[:-1]}z")
            spool.append(name, b'[["fingerprint", 2, "00"]]')
            file = tmp_path / f"{name}.spool"
        fill(box.begin(began("e1")), hands(0))
    if how == "flipped":
        flip(file)
    with opened(tmp_path) as spool:
        box = Outbox(spool, OfTemplates())
        assert [(one.name, one.sync) for one in box.states()] == [("e1", Sync.WAITING)]
        with nobody() as client:
            assert [one.sync for one in box.send(client, timeout=5)] == [Sync.WAITING]
        of = box.begin(began("e2"))
        assert "fingerprint" in box.operator_warning(of)
        assert box.alike(box.resume("e1")) == ()
        box.enrol_operator("Sari", OPERATORS)
        assert box.operator_warning(of) == ""
        assert not file.exists()
    with opened(tmp_path) as spool:
        assert not spool.damaged
        assert Outbox(spool, OfTemplates()).operator("Sari") != ()
