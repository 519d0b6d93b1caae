"""What the service promises under ill treatment, on real processes; benchmarks/reliability.py runs longer."""

from pathlib import Path

import pytest

from benchmarks.ill_treatment import corrupted_index, full_disk, jumping_clock, no_room_for_files, soaked
from benchmarks.reliability import kill_rounds, race_rounds, read_trace, traced_enrolment
from benchmarks.server_process import Broken, server


def test_what_was_acknowledged_survives_kill_and_nothing_is_enrolled_twice(tmp_path: Path) -> None:
    killed = kill_rounds(tmp_path, 3)
    assert killed.held, killed
    assert killed.kept.acknowledged >= 3
    assert min(killed.kept.deleted, killed.kept.rejected) >= 1
    assert killed.in_flight_at_kill >= 3  # it was in the middle of something


def test_a_full_disk_is_told_searched_through_and_got_over(tmp_path: Path) -> None:
    full = full_disk(tmp_path, no_room_for_files, refusals=2)
    assert full.held, full
    assert any("disk is full" in told for told in full.told)


def test_flipped_bytes_of_the_index_are_noticed_and_nobody_is_lost(tmp_path: Path) -> None:
    corrupted = corrupted_index(tmp_path, 3, (0.5,))
    assert corrupted.held, corrupted
    assert corrupted.files >= 2


def test_a_clock_that_jumps_changes_nothing_but_times(tmp_path: Path) -> None:
    jumped = jumping_clock(tmp_path, 5)
    assert jumped.held, jumped
    assert jumped.jumps >= 3


def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    soak = soaked(tmp_path, 0.1, clients=2, every_seconds=0.1)
    assert soak.kept.held, soak  # what memory does shows in half an hour only
    assert soak.enrolled > 2
    assert soak.most_mib > 10


def test_two_clients_at_once_never_make_one_person_two(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        different = race_rounds(process.address, 5, same_nik=False)
        # People none of whose ten fingers denies its owner by chance: an operator would look at that return.
        same = race_rounds(process.address, 5, same_nik=True, first=10)
    assert different.held, different
    assert same.held, same
    assert different.at_the_same_time + same.at_the_same_time >= 5
    assert different.decisions == {"DUPLICATE + UNIQUE": 5}
    assert same.decisions == {"RETURNING + UNIQUE": 5}


def test_the_record_is_synced_before_the_reply_is_sent(tmp_path: Path) -> None:
    traced = traced_enrolment(tmp_path)
    assert traced.held, traced
    trace = (tmp_path / "trace").read_text(errors="replace")
    # It keeps no record for the maker of a library, and asks nobody where to send it.
    assert ".onnxruntime" not in trace
    assert "microsoft" not in trace.lower()


def trace(*lines: str) -> list[str]:
    return [f"100 {line}" for line in lines]


WRITE = 'pwrite64(7</d/rekam.sqlite-wal>, "..e-1..", 4096, 0) = 4096'
REST = 'pwrite64(7</d/rekam.sqlite-wal>, "....", 4096, 4096) = 4096'
SYNC = "fdatasync(7</d/rekam.sqlite-wal>) = 0"
REPLY = 'sendmsg(9<socket:[12]>, {msg_iov=[{iov_base="..e-1.."}]}, MSG_NOSIGNAL) = 300'


def test_a_good_trace_is_read() -> None:
    traced = read_trace(trace(WRITE, REST, SYNC, REPLY), "e-1")
    assert traced.held
    assert (traced.record_written, traced.last_log_write, traced.sync_returned, traced.reply_sent) == (
        1,
        2,
        3,
        4,
    )


@pytest.mark.parametrize(
    "lines",
    [
        trace(WRITE, REST, REPLY, SYNC),  # replied first
        trace(WRITE, SYNC, REST, REPLY),  # a part was not synced
        trace(WRITE, REST, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), REPLY),
        trace(WRITE, REST, SYNC.replace("-wal", ""), REPLY),  # another file
        trace(REST, SYNC, REPLY),  # the record never came
        trace(WRITE, REST, SYNC),  # no reply
        [
            "100 " + WRITE,
            "100 fdatasync(7</d/rekam.sqlite-wal> <unfinished ...>",
            "101 " + REPLY,
            "100 <... fdatasync resumed>) = 0",
        ],
    ],
)
def test_a_broken_promise_is_seen_in_the_trace(lines: list[str]) -> None:
    try:
        held = read_trace(lines, "e-1").held
    except Broken:
        held = False
    assert not held


def test_a_server_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(Broken, match=r"did not start:\n.*error: "), server(tmp_path):
        pass
