"""Signatures: images and strokes, taken when they are complete, refused when they are something else."""

import os
import threading
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from devices.device import Captured, CaptureSpec, Condition, Outcome, TimedOut
from devices.errors import DeviceProtocolError, DeviceRemoved, DeviceUnavailable
from devices.frame import DeviceKind
from devices.signature import Params, SignatureDriver, drawing, picture, strokes
from tests.signing import signing

PARAMS = Params()
INK = b"""<?xml version="1.0"?>
<ink xmlns="http://www.w3.org/2003/InkML">
  <trace>10 0, 9 14, 8 28 7, 7 42</trace>
  <trace> 130.5 155
          , 144 159 </trace>
</ink>"""


def png(width: int, height: int, mode: str = "L", colour: int | tuple[int, ...] = 200) -> bytes:
    file = BytesIO()
    Image.new(mode, (width, height), colour).save(file, "PNG")
    return file.getvalue()


def outcome(pad: Path, seconds: float, params: Params = PARAMS) -> Outcome:
    return SignatureDriver((pad,), params=params).open(str(pad)).capture(CaptureSpec(seconds=seconds))


def captured(pad: Path, sign: Callable[[], object], params: Params = PARAMS) -> Captured:
    with signing(sign):
        got = outcome(pad, 60, params)
    assert isinstance(got, Captured)
    return got


def test_a_file_gives_the_picture_that_is_written_into_it(tmp_path: Path) -> None:
    pad = tmp_path / "signed.png"
    pad.touch()
    (frame,) = captured(pad, lambda: pad.write_bytes(png(40, 20))).frames
    assert frame.kind is DeviceKind.SIGNATURE
    assert frame.pixels.shape == (20, 40, 3)
    assert (frame.pixels == 200).all()


@pytest.mark.parametrize("name", ["signed.png", ""], ids=["file", "folder"])
def test_the_signature_of_the_person_before_is_never_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "signed.png").write_bytes(png(10, 10))
    assert outcome(tmp_path / name, 0.5) == TimedOut(0.5)


@pytest.mark.parametrize("name", ["signed.png", ""], ids=["file", "folder"])
def test_nor_when_it_was_still_being_written_as_the_capture_began(name: str, tmp_path: Path) -> None:
    begun = threading.Event()

    def sign() -> None:
        for height in range(10, 25):
            (tmp_path / "signed.png").write_bytes(png(10, height))
            begun.set()
            threading.Event().wait(0.02)

    late = threading.Thread(target=sign)
    late.start()
    assert begun.wait(60)
    assert outcome(tmp_path / name, 3, Params(settled_seconds=1)) == TimedOut(3)
    late.join()


def test_nor_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(10, 10))
    number = count()

    def put_aside() -> None:
        at = next(number)
        (tmp_path / f"{at}.png").replace(tmp_path / f"{at + 1}.png")

    with signing(put_aside):
        assert outcome(tmp_path, 2) == TimedOut(2)


def test_a_file_is_new_when_it_is_written_again_or_another_is_put_in_its_place(tmp_path: Path) -> None:
    pad, beside = tmp_path / "signed.png", tmp_path / "beside"

    def replace() -> None:
        beside.write_bytes(png(20, 10))
        os.utime(beside, ns=(before, before))  # as programs do that copy a file with its times
        beside.replace(pad)

    for sign in (lambda: pad.write_bytes(png(20, 10)), replace):
        pad.write_bytes(png(20, 10))
        before = pad.stat().st_mtime_ns
        assert captured(pad, sign).frames[0].pixels.shape == (10, 20, 3)


def test_strokes_are_drawn_and_kept_as_they_came(tmp_path: Path) -> None:
    pad = tmp_path / "signed.inkml"
    pad.touch()
    got = captured(pad, lambda: pad.write_bytes(INK))
    (frame,), (record,) = got.frames, got.records
    assert (record.data, record.format) == (INK, "InkML")
    params = Params()
    height, width = frame.pixels.shape
    assert max(height, width) == params.width
    dark = np.argwhere(frame.pixels < 128)
    assert dark.min() >= params.margin - params.pen
    assert (dark.max(axis=0) <= np.array([height, width]) - params.margin + params.pen).all()
    rows, columns = dark[dark[:, 1] < width // 3].T
    assert columns[rows == rows.min()].mean() > columns[rows == rows.max()].mean()  # leans as it was written


def test_a_stroke_of_one_point_is_a_dot() -> None:
    assert drawing(strokes(b"<ink><trace>5 5</trace></ink>", Params()), Params()).min() == 0


def test_transparent_paper_is_white() -> None:
    assert (picture(png(4, 4, "RGBA", (0, 0, 0, 0)), Params()) == 255).all()


def test_a_folder_gives_what_is_written_from_now_on_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(png(10, 10))
    data, number = png(300, 100), count()

    def sign() -> None:
        with (tmp_path / f"{next(number)}.png").open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            threading.Event().wait(0.5)  # for longer than a file needs to settle
            file.write(data[len(data) // 2 :])

    (frame,) = captured(tmp_path, sign, Params(broken_seconds=30)).frames
    assert frame.pixels.shape == (100, 300, 3)


def test_what_else_lies_in_a_folder_disturbs_nothing(tmp_path: Path) -> None:
    number = count()

    def litter() -> None:
        name = f"{next(number)}"
        (tmp_path / f"{name}.folder").mkdir()
        (tmp_path / f"{name}.nowhere").symlink_to(tmp_path / "nowhere")
        (tmp_path / f"{name}.circle").symlink_to(tmp_path / f"{name}.circle")
        (tmp_path / f".{name}.png").write_bytes(b"not yet")
        os.mkfifo(tmp_path / f"{name}.fifo")

    litter()
    with signing(litter):
        assert outcome(tmp_path, 1) == TimedOut(1)

    def sign() -> None:
        litter()
        (tmp_path / "new.png").write_bytes(png(20, 10))

    frames = captured(tmp_path, sign).frames
    assert frames[0].pixels.shape == (10, 20, 3)


def test_a_log_written_after_the_signature_does_not_hide_it(tmp_path: Path) -> None:
    def sign() -> None:
        (tmp_path / "signed.png").write_bytes(png(20, 10))
        threading.Event().wait(0.02)
        (tmp_path / "signed.txt").write_text("signed with a pen")

    assert captured(tmp_path, sign).frames[0].pixels.shape == (10, 20, 3)


def test_a_file_that_never_rests_hides_no_signature(tmp_path: Path) -> None:
    stop = threading.Event()

    def tell() -> None:
        for number in count():
            (tmp_path / "status").write_text(f"{number}")
            if stop.wait(0.03):
                return

    telling = threading.Thread(target=tell)
    telling.start()
    try:
        signed = captured(tmp_path, lambda: (tmp_path / "signed.png").write_bytes(png(20, 10)))
    finally:
        stop.set()
        telling.join()
    assert signed.frames[0].pixels.shape == (10, 20, 3)


def test_what_was_being_written_as_the_capture_began_is_not_new_under_its_last_name(tmp_path: Path) -> None:
    begun = threading.Event()

    def sign() -> None:
        with (tmp_path / "new.part").open("wb", buffering=0) as file:
            for byte in png(10, 10):
                file.write(bytes([byte]))
                begun.set()
                threading.Event().wait(0.015)
        (tmp_path / "new.part").replace(tmp_path / "new.png")

    late = threading.Thread(target=sign)
    late.start()
    assert begun.wait(60)
    assert outcome(tmp_path, 4, Params(settled_seconds=0.5)) == TimedOut(4)
    late.join()


def test_a_program_that_always_writes_under_one_name_first_is_heard(tmp_path: Path) -> None:
    part, number = tmp_path / "sig.part", count()
    part.write_bytes(b"of the person before")  # and not settled when it gets its last name

    def sign() -> None:
        part.write_bytes(png(20, 10))
        threading.Event().wait(0.2)
        part.replace(tmp_path / f"{next(number)}.png")

    with signing(sign):
        got = outcome(tmp_path, 20, Params(settled_seconds=1))
    assert isinstance(got, Captured)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    secret, number = Path("/proc/self/mem"), count()
    with (
        signing(lambda: (tmp_path / f"{next(number)}.png").symlink_to(secret)),
        pytest.raises(DeviceUnavailable, match="cannot be read"),
    ):
        outcome(tmp_path, 60, Params(broken_seconds=0.1))


def test_a_pad_that_is_gone_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "pad"
    folder.mkdir()
    driver = SignatureDriver((folder, tmp_path / "never"))
    assert [info.id for info in driver.discover()] == [str(folder)]
    pad = driver.open(str(folder))
    threading.Timer(0.3, folder.rmdir).start()
    with pytest.raises(DeviceRemoved):
        pad.capture(CaptureSpec(seconds=60))
    assert pad.health().condition is Condition.REMOVED
    with pytest.raises(DeviceRemoved):
        driver.open(str(folder))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        b"<ink></ink>",
        b"<ink><trace></trace></ink>",
        b"<ink><trace>1 2, 3</trace></ink>",
        b"<ink><trace>1 nan</trace></ink>",
        b"<ink><trace>1 1e999</trace></ink>",
        b"<ink><trace>1e308 0, -1e308 0</trace></ink>",
        b"<ink><trace>" + b"1 2," * 60_000 + b"1 2</trace></ink>",
        b"<ink>",
        b'<!DOCTYPE i [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(12))
        + b"]><ink><trace>&m;</trace></ink>",
        png(4000, 4000),
        png(40, 40)[:60],
        bytes(5 << 20),
    ],
)
def test_what_is_no_signature_is_refused(data: bytes, tmp_path: Path) -> None:
    pad = tmp_path / "pad"
    pad.touch()
    with pytest.raises(DeviceProtocolError):
        captured(pad, lambda: pad.write_bytes(data), Params(broken_seconds=0.1))


SPOILT = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda data, place, new: data[: place % len(data)] + new + data[place % len(data) + 1 :],
        st.sampled_from([INK, png(20, 10), png(9, 9, "RGBA", (1, 2, 3, 4))]),
        st.integers(0, 10_000),
        st.binary(max_size=4),
    ),
    st.lists(st.tuples(st.floats(), st.floats()), max_size=20).map(
        lambda points: b"<ink><trace>%s</trace></ink>" % ",".join(f"{x} {y}" for x, y in points).encode()
    ),
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_small_file_that_would_grow_is_refused_at_once(encoding: str) -> None:
    entity = '<!ENTITY a "' + "1 2," * 5_000 + '">'
    text = f"<!DOCTYPE i [{entity}]><ink><trace>{'&a;' * 1_000}1 2</trace></ink>"
    with pytest.raises(DeviceProtocolError, match="document type"):
        strokes(text.encode(encoding), PARAMS)


def test_points_are_counted_before_they_are_made() -> None:
    data = b"<ink><trace>" + b"1 2," * 1_000_000 + b"1 2</trace></ink>"
    tracemalloc.start()
    try:
        with pytest.raises(DeviceProtocolError, match="too many points"):
            strokes(data, PARAMS)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(data)
    finally:
        tracemalloc.stop()


@settings(max_examples=80, deadline=None)
@given(SPOILT)
def test_spoilt_files_raise_nothing_else(data: bytes) -> None:
    params = Params(most_pixels=1000)
    try:
        if data.startswith(b"<"):
            drawn = drawing(strokes(data, params), params)
            assert max(drawn.shape) <= params.width
        else:
            picture(data, params)
    except DeviceProtocolError:
        pass
