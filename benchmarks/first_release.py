"""Make `tests/first_release.sql`: a data folder as the first release wrote it, as SQL text.

Run it with that release's code, of which this file was no part yet:

    git worktree add ../first 2317775
    cp benchmarks/first_release.py ../first/benchmarks/
    cd ../first && python -m benchmarks.first_release ../rekam/tests/first_release.sql

People and templates are made up. Two people, one of them twice; one held under a second NIK; one held and
rejected; one deleted.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.encounters import again, enroll_request, made_up_nik
from benchmarks.population import person
from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from rekam import codec
from rekam.config import load_settings
from rekam.exchange import Recorded
from rekam.v1 import case_pb2, enrollment_pb2
from rekam.workflow import Workflow

SEED = 2
THREE = (FingerPosition.RIGHT_THUMB, FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_THUMB)


def make(folder: Path) -> str:
    """Enrol into a new data folder; its database as SQL."""
    workflow = Workflow(load_settings(data_dir=folder, workers=1))

    def enroll(request_id: str, number: int, fingers: Sequence[FingerprintTemplate]) -> Recorded:
        outcome = workflow.enroll(
            *codec.read_enroll(enroll_request(request_id, made_up_nik(number), fingers))
        )
        assert isinstance(outcome, Recorded)
        return outcome

    people = [person(number, SEED, THREE) for number in range(4)]
    enroll("enroll-0", 0, people[0])
    enroll("enroll-1", 1, people[1])
    enroll("enroll-0-again", 0, again(people[0], 5))
    enroll("enroll-2", 2, again(people[1], 6))
    rejected = enroll("enroll-5", 5, again(people[0], 7))
    gone = enroll("enroll-3", 3, people[3])
    delete = enrollment_pb2.DeleteSubjectRequest(request_id="delete-3", subject_id=gone.subject_id or "")
    workflow.delete_subject(*codec.read_delete_subject(delete))
    resolve = case_pb2.ResolveCaseRequest(
        request_id="resolve-5",
        case_id=rejected.case_id or "",
        resolution=case_pb2.RESOLUTION_REJECTED,
        operator="Sari",
        comment="brought by mistake",
    )
    case_id, resolution, request_id, digest = codec.read_resolve_case(resolve)
    workflow.resolve_case(
        case_id,
        resolution,
        operator=resolve.operator,
        comment=resolve.comment,
        subject_id=None,
        request_id=request_id,
        digest=digest,
    )
    workflow.close()
    with closing(sqlite3.connect(folder / "rekam.sqlite")) as database:
        return "\n".join(database.iterdump()) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        Path(sys.argv[1]).write_text(make(Path(temporary) / "data"), encoding="utf-8")
