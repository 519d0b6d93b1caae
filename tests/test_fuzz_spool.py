"""Whatever lies in the folder of a spool: typed errors only, and nothing that was not kept comes out."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from rekam.errors import SpoolError
from rekam.spool import BOOK, Params, Spool

CHEAP = Params(log2_n=1, largest_record=2000, largest_file=10_000, reserve=1)
RECORDS = tuple(bytes([number]) * 40 for number in range(4))
edits = st.lists(
    st.tuples(
        st.sampled_from((BOOK, "a.spool")),
        st.sampled_from(("flip", "cut", "add", "copy")),
        st.integers(0, 1000),
        st.binary(max_size=80),
    ),
    min_size=1,
    max_size=4,
)


def altered(data: bytes, how: str, at: int, with_: bytes) -> bytes:
    at %= len(data) + 1
    match how:
        case "flip":
            return data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 1]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "add":
            return data[:at] + with_ + data[at:]
        case _:
            return data[:at] + data[at // 2 :]


@cache
def files() -> dict[str, bytes]:
    with TemporaryDirectory() as name:
        with Spool.open(Path(name), "x", CHEAP) as spool:
            spool.begin("a")
            for record in RECORDS:
                spool.append("a", record)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


@settings(max_examples=150, deadline=None)
@given(edits)
def test_altered_files_are_refused_or_give_what_was_kept(changes: list[tuple[str, str, int, bytes]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        spoilt = files()
        for file, how, at, with_ in changes:
            spoilt = spoilt | {file: altered(spoilt[file], how, at, with_)}
        for file, data in spoilt.items():
            (folder / file).write_bytes(data)
        try:
            with Spool.open(folder, "x", CHEAP) as spool:
                records = spool.records("a")
                assert records == RECORDS[: len(records)]
                assert len(records) == len(RECORDS) or "lacks its last captures" in spool.notices[0]
        except SpoolError:
            pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_for_a_book(data: bytes, like_one: bool) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / BOOK).write_bytes((b"RKSP\x01\x01\x01\x01" if like_one else b"") + data)
        try:
            Spool.open(folder, "x", CHEAP).close()
        except SpoolError:
            return
        raise AssertionError("a book by chance was believed")
