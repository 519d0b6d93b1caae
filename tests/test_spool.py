"""The spool: what was kept is there after anything, nobody reads it, and nobody alters it unnoticed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rekam.errors import SpoolDamaged, SpoolError, SpoolInUse, WrongPassphrase
from rekam.spool import BOOK, Params, Spool

CHEAP = Params(log2_n=4)
WORD = "kopi susu"


def opened(folder: Path, word: str = WORD) -> Spool:
    return Spool.open(folder, word, CHEAP)


def filled(folder: Path, names: tuple[str, ...] = ("a", "b"), count: int = 3) -> None:
    with opened(folder) as spool:
        for name in names:
            spool.begin(name)
            for number in range(count):
                spool.append(name, f"{name}{number}".encode() * 100)


def length(folder: Path, name: str) -> int:
    return (folder / f"{name}.spool").stat().st_size


def test_what_was_kept_comes_back_in_order(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as spool:
        assert spool.names == ("a", "b")
        assert spool.notices == ()
        assert spool.records("b") == tuple(f"b{n}".encode() * 100 for n in range(3))
        spool.append("a", b"more")
        assert spool.records("a")[3] == b"more"


def test_nothing_of_it_can_be_read_on_the_disk(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as spool:
        spool.settle("a", "enrolled as somebody")
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for text in (b"b0b0", b"somebody", b'"open"'):
        assert text not in on_disk
    assert {path.stat().st_mode & 0o077 for path in (tmp_path, *tmp_path.iterdir())} == {0}


def test_another_passphrase_is_a_clear_error(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(WrongPassphrase, match="not the passphrase"):
        opened(tmp_path, "teh tarik")
    opened(tmp_path).close()


def test_two_spools_of_one_passphrase_have_two_keys(tmp_path: Path) -> None:
    filled(tmp_path / "one", ("a",))
    filled(tmp_path / "two", ("a",))
    shutil.copy(tmp_path / "one" / "a.spool", tmp_path / "two" / "a.spool")
    with opened(tmp_path / "two") as spool:
        assert set(spool.damaged) == {"a"}


def test_one_process_has_it_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(SpoolInUse, match="another program"):
        opened(tmp_path)
    opened(tmp_path).close()


@pytest.mark.parametrize("left", [1, 3, 17, 200])
def test_what_a_power_cut_left_of_a_record_is_dropped_and_said(tmp_path: Path, left: int) -> None:
    filled(tmp_path)
    book = (tmp_path / BOOK).read_bytes()
    whole = length(tmp_path, "a")
    with opened(tmp_path) as spool:
        spool.append("a", b"torn" * 100)
    # The power went before the book counted it, and before all of it was on the disk.
    (tmp_path / BOOK).write_bytes(book)
    os.truncate(tmp_path / "a.spool", whole + left)
    with opened(tmp_path) as spool:
        assert len(spool.records("a")) == 3
        assert len(spool.notices) == 1
        assert f"cut off after {left} bytes and is dropped" in spool.notices[0]
        spool.append("a", b"once more")
    with opened(tmp_path) as spool:
        assert spool.notices == ()
        assert spool.records("a")[3] == b"once more"


def test_a_whole_record_the_book_did_not_count_is_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    book = (tmp_path / BOOK).read_bytes()
    with opened(tmp_path) as spool:
        spool.append("a", b"whole")
    (tmp_path / BOOK).write_bytes(book)
    with opened(tmp_path) as spool:
        assert spool.records("a")[3] == b"whole"


@pytest.mark.parametrize("left", [0, 7])
def test_an_encounter_the_power_cut_before_its_first_record_is_dropped_and_said(
    tmp_path: Path, left: int
) -> None:
    filled(tmp_path, ("b",))
    with opened(tmp_path) as spool:
        spool.begin("a")
        assert spool.names == ("b",)
    (tmp_path / "a.spool").write_bytes(bytes(left))
    with opened(tmp_path) as spool:
        assert spool.names == ("b",)
        assert "nothing of it was kept" in spool.notices[-1]
        assert not (tmp_path / "a.spool").exists()
        spool.begin("a")
        spool.append("a", b"first")
    with opened(tmp_path) as spool:
        assert spool.notices == ()
        assert spool.records("a") == (b"first",)


def test_records_that_were_kept_and_are_gone_are_noticed_and_the_others_go_on(tmp_path: Path) -> None:
    filled(tmp_path, ("a", "b", "c", "d"))
    third = length(tmp_path, "a") // 3
    os.truncate(tmp_path / "a.spool", 2 * third)  # one record
    os.truncate(tmp_path / "b.spool", 2 * third + 9)  # half a record
    (tmp_path / "c.spool").unlink()
    with opened(tmp_path) as spool:
        assert set(spool.damaged) == {"a", "b", "c"}
        assert "2 of 3 are there" in spool.damaged["a"]
        for name in spool.damaged:
            with pytest.raises(SpoolDamaged, match=f"encounter {name}"):
                spool.records(name)
            with pytest.raises(SpoolDamaged):
                spool.append(name, b"on top of it")
        assert len(spool.records("d")) == 3
        spool.settle("a", "given up")
        assert spool.names == ("b", "c", "d")


def test_reordered_and_exchanged_records_are_noticed(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "a.spool"
    data = path.read_bytes()
    third = len(data) // 3
    first, second, last = data[:third], data[third : 2 * third], data[2 * third :]
    other = (tmp_path / "b.spool").read_bytes()
    for altered in (
        second + first + last,
        first + last,
        first + first + second + last,
        first + other[third : 2 * third] + last,
        other,
    ):
        path.write_bytes(altered)
        with opened(tmp_path) as spool:
            assert set(spool.damaged) == {"a"}
    path.write_bytes(data)
    with opened(tmp_path) as spool:
        assert not spool.damaged


def test_a_spool_without_its_book_is_not_begun_anew(tmp_path: Path) -> None:
    filled(tmp_path)
    book = (tmp_path / BOOK).read_bytes()
    for spoilt in (b"", book[:10], book[:24], book[:51], b"X" + book[1:]):
        (tmp_path / BOOK).write_bytes(spoilt)
        with pytest.raises(SpoolError):
            opened(tmp_path)
    (tmp_path / BOOK).unlink()
    with pytest.raises(SpoolDamaged, match="lost its book"):
        opened(tmp_path)
    (tmp_path / BOOK).write_bytes(book)
    opened(tmp_path).close()


@pytest.mark.parametrize("how", ["a bit", "cut off"])
def test_with_a_damaged_book_the_encounters_are_found_by_their_files_and_that_is_said(
    tmp_path: Path, how: str
) -> None:
    filled(tmp_path, ("z", "b", "c", "d"))
    with opened(tmp_path) as spool:
        spool.settle("d", "UNIQUE")
    (tmp_path / "c.spool").write_bytes(bytes(500))
    for age, name in ((3, "z"), (2, "b"), (1, "c")):
        os.utime(tmp_path / f"{name}.spool", ns=(10**18 - age, 10**18 - age))
    book = bytearray((tmp_path / BOOK).read_bytes())
    book[-1] ^= 1
    (tmp_path / BOOK).write_bytes(book if how == "a bit" else book[:60])
    with pytest.raises(WrongPassphrase):
        opened(tmp_path, "teh tarik")
    with opened(tmp_path) as spool:
        assert "the book of the spool was damaged" in spool.notices[0]
        assert len(spool.notices) == 1
        assert spool.names == ("z", "b", "c")
        assert set(spool.damaged) == {"c"}
        assert spool.records("b") == tuple(f"b{n}".encode() * 100 for n in range(3))
        assert (tmp_path / "c.spool").stat().st_size == 500
        spool.append("z", b"more")
    with opened(tmp_path) as spool:  # the new book counts again
        assert (spool.notices, len(spool.records("z")), set(spool.damaged)) == ((), 4, {"c"})
        spool.settle("c", "given up")
    os.truncate(tmp_path / "z.spool", length(tmp_path, "b") // 3)
    with opened(tmp_path) as spool:
        assert set(spool.damaged) == {"z"}


@pytest.mark.parametrize("how", ["a bit", "cut off", "more"])
def test_with_a_damaged_book_what_cannot_be_read_to_its_end_is_damaged_and_stays(
    tmp_path: Path, how: str
) -> None:
    filled(tmp_path, ("a", "b"), count=6)
    file = tmp_path / "a.spool"
    data = bytearray(file.read_bytes())
    data[len(data) // 6 + 40] ^= 1  # in the second record
    spoilt = {"a bit": bytes(data), "cut off": file.read_bytes()[:-7], "more": file.read_bytes() + bytes(9)}
    file.write_bytes(spoilt[how])
    book = bytearray((tmp_path / BOOK).read_bytes())
    book[-1] ^= 1
    (tmp_path / BOOK).write_bytes(book)
    for _ in range(2):  # the new book says the same
        with opened(tmp_path) as spool:
            assert set(spool.damaged) == {"a"}
            assert len(spool.records("b")) == 6
            with pytest.raises(SpoolDamaged, match="encounter a"):
                spool.records("a")
        assert file.read_bytes() == spoilt[how]


def test_a_book_whose_proof_is_damaged_is_read_all_the_same(tmp_path: Path) -> None:
    filled(tmp_path)
    book = bytearray((tmp_path / BOOK).read_bytes())
    book[30] ^= 1
    (tmp_path / BOOK).write_bytes(book)
    with opened(tmp_path) as spool:
        assert (spool.notices, len(spool.records("a"))) == ((), 3)


def test_a_book_that_asks_for_endless_work_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    book = bytearray((tmp_path / BOOK).read_bytes())
    book[5] = 40
    (tmp_path / BOOK).write_bytes(book)
    with pytest.raises(SpoolDamaged, match="more work"):
        opened(tmp_path)


def test_what_is_settled_is_erased_and_its_outcome_stays(tmp_path: Path) -> None:
    filled(tmp_path)
    kept = (tmp_path / "a.spool").read_bytes()
    with opened(tmp_path) as spool:
        spool.settle("a", "UNIQUE")
        assert not (tmp_path / "a.spool").exists()
        with pytest.raises(SpoolError):
            spool.begin("a")
    (tmp_path / "a.spool").write_bytes(kept)  # the power was cut before it was unlinked
    with opened(tmp_path) as spool:
        assert spool.names == ("b",)
        assert spool.settled == {"a": "UNIQUE"}
        assert not (tmp_path / "a.spool").exists()


def test_only_the_latest_outcomes_are_kept(tmp_path: Path) -> None:
    with Spool.open(tmp_path, WORD, Params(log2_n=4, outcomes_kept=3)) as spool:
        for number in range(5):
            spool.begin(f"e{number}")
            spool.settle(f"e{number}", str(number))
        assert list(spool.settled) == ["e2", "e3", "e4"]


@pytest.mark.parametrize("name", ["", "A", "../a", "a/b", "book", "a" * 65, "-a"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as spool, pytest.raises(SpoolError, match="cannot name"):
        spool.begin(name)


def test_a_record_that_could_not_be_written_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    with opened(tmp_path) as spool:
        real = os.fsync
        failed: list[int] = []

        def full(handle: int) -> None:
            if len(failed) < 1:
                failed.append(handle)
                raise OSError(28, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SpoolError, match="No space"):
            spool.append("a", b"lost")
        spool.append("a", b"kept")
        assert spool.records("a")[3:] == (b"kept",)
    with opened(tmp_path) as spool:
        assert spool.records("a")[3:] == (b"kept",)


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool]) -> None:
    """Let one fsync fail: the first of a file or folder for which `fails` is true."""
    real, failed = os.fsync, list[int]()

    def fsync(handle: int) -> None:
        if not failed and fails(Path(f"/proc/self/fd/{handle}").resolve()):
            failed.append(handle)
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the folder may not grow: what would make it larger is not written."""
    real, sizes = os.fsync, {path: path.stat().st_size for path in folder.iterdir()}
    most = sum(sizes.values())

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        grew = path.is_file() and path.stat().st_size > sizes.get(path, 0)
        if grew and sum(path.stat().st_size for path in folder.iterdir()) > most:
            raise OSError(28, "No space left on device")
        real(handle)

    def posix_fallocate(handle: int, start: int, size: int) -> None:
        before = os.fstat(handle).st_size
        os.truncate(handle, max(before, start + size))
        if before < start + size and sum(path.stat().st_size for path in folder.iterdir()) > most:
            os.truncate(handle, before)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)


def test_a_full_disk_can_be_opened_and_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    book = (tmp_path / BOOK).read_bytes()
    with opened(tmp_path) as spool:
        spool.append("a", b"whole")  # and the power is cut before its book
    (tmp_path / BOOK).write_bytes(book)
    no_room(tmp_path, monkeypatch)
    for _ in range(2):
        with opened(tmp_path) as spool:
            assert len(spool.records("a")) == 4
            with pytest.raises(SpoolError, match="No space"):
                spool.append("a", b"more")
            with pytest.raises(SpoolError, match="No space"):
                spool.begin("c")
    with opened(tmp_path) as spool:
        spool.settle("b", "UNIQUE")
        assert spool.names == ("a",)
        assert len(spool.records("a")) == 4
        spool.settle("a", "UNIQUE")
    with opened(tmp_path) as spool:
        assert (spool.names, list(spool.settled)) == ((), ["b", "a"])


def test_opening_writes_no_book_where_nothing_changed(tmp_path: Path) -> None:
    filled(tmp_path)
    book = (tmp_path / BOOK).read_bytes()
    opened(tmp_path).close()
    assert (tmp_path / BOOK).read_bytes() == book


def test_a_record_that_failed_after_its_book_was_there_is_tried_again_through_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    file = tmp_path / "a.spool"
    with opened(tmp_path) as spool:
        failing(monkeypatch, lambda path: path == tmp_path)  # after the book was renamed
        with pytest.raises(SpoolError, match="Input/output"):
            spool.append("a", b"lost")
        lost = file.read_bytes()
        # The second try has its record on the disk, and the power goes before its book is.
        failing(monkeypatch, lambda path: path.name == f"{BOOK}.new" and file.read_bytes() != lost)
        with pytest.raises(SpoolError, match="Input/output"):
            spool.append("a", b"kept")
    with opened(tmp_path) as spool:
        assert not spool.damaged
        assert spool.records("a")[3:] == (b"kept",)


def test_an_encounter_that_could_not_be_begun_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as spool:
        failing(monkeypatch, lambda path: path.name == f"{BOOK}.new")
        with pytest.raises(SpoolError, match="Input/output"):
            spool.begin("a")
        spool.begin("a")
        spool.append("a", b"first")
        assert spool.records("a") == (b"first",)


def test_an_encounter_never_grows_beyond_what_is_read(tmp_path: Path) -> None:
    params = Params(log2_n=4, largest_file=500)
    with Spool.open(tmp_path, WORD, params) as spool:
        spool.begin("a")
        spool.append("a", bytes(400))
        with pytest.raises(SpoolError, match="too large"):
            spool.append("a", bytes(100))
        spool.append("a", bytes(10))
    with Spool.open(tmp_path, WORD, params) as spool:
        assert not spool.damaged
        assert len(spool.records("a")) == 2


def test_a_spool_is_not_made_where_none_is_wanted(tmp_path: Path) -> None:
    for folder in (tmp_path / "away", tmp_path):
        with pytest.raises(SpoolError, match="no spool in"):
            Spool.open(folder, WORD, CHEAP, create=False)
    assert not list(tmp_path.iterdir())
    filled(tmp_path)
    Spool.open(tmp_path, WORD, CHEAP, create=False).close()
    (tmp_path / BOOK).unlink()
    with pytest.raises(SpoolDamaged, match="lost its book"):
        Spool.open(tmp_path, WORD, CHEAP, create=False)


def test_a_passphrase_is_one_word_however_it_is_composed_and_any_bytes_are_one(tmp_path: Path) -> None:
    opened(tmp_path / "one", "caf\u00e9 \u2460").close()
    opened(tmp_path / "one", "cafe\u0301 1").close()
    no_text = b"kopi\xff".decode(errors="surrogateescape")  # as the environment gives it
    opened(tmp_path / "two", no_text).close()
    opened(tmp_path / "two", no_text).close()
    with pytest.raises(WrongPassphrase):
        opened(tmp_path / "two", "kopi\ud800")


_APPENDING = """
import sys
from pathlib import Path
from rekam.spool import Params, Spool
spool = Spool.open(Path(sys.argv[1]), sys.argv[2], Params(log2_n=4))
spool.begin("a")
number = 0
while True:
    spool.append("a", number.to_bytes(4, "big") * 5000)
    number += 1
    print(number, flush=True)
"""


def test_what_append_returned_for_is_there_after_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _APPENDING, str(tmp_path), WORD], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 20:
            pass
        process.kill()
        said = int((process.stdout.read().split() or ["20"])[-1])
    with opened(tmp_path) as spool:
        records = spool.records("a")
        assert said <= len(records) <= said + 1
        assert records == tuple(n.to_bytes(4, "big") * 5000 for n in range(len(records)))


def test_the_disk_has_the_name_of_a_new_spool_and_of_its_parents(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    script = _APPENDING.replace("while True", "while False")
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=mkdir,fsync"]
    subprocess.run(
        [*command, sys.executable, "-c", script, str(tmp_path / "of" / "spool"), WORD],
        check=True,
        capture_output=True,
    )
    calls = trace.read_text().splitlines()
    for folder in (tmp_path / "of", tmp_path / "of" / "spool"):
        [made] = [i for i, call in enumerate(calls) if f'mkdir("{folder}"' in call and "= 0" in call]
        assert any("fsync(" in call and f"<{folder.parent}>" in call for call in calls[made:])


def test_the_disk_has_it_before_append_returns(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    script = _APPENDING.replace("while True", "while number < 1")
    command = ["strace", "-f", "-o", str(trace), "-e", "trace=fsync,fdatasync,rename,renameat2,write"]
    subprocess.run(
        [*command, sys.executable, "-c", script, str(tmp_path / "spool"), WORD],
        check=True,
        capture_output=True,
    )
    calls = trace.read_text().splitlines()
    said = next(i for i, call in enumerate(calls) if 'write(1, "1' in call)
    written = max(i for i, call in enumerate(calls[:said]) if "write(" in call and '"\\0\\0N0' in call)
    renamed = max(i for i, call in enumerate(calls[:said]) if "rename" in call)
    after = [i for i, call in enumerate(calls[:said]) if "sync(" in call and call.rstrip().endswith("= 0")]
    # The record, then the new book before it takes the old one's place, then the name.
    assert any(written < i < renamed for i in after)
    assert any(i > renamed for i in after)
