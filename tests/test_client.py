"""What files show is told by their names, and by the exchange records in them."""

from pathlib import Path

import pytest

from capture.sample import EyePosition, FingerPosition, Modality
from rekam.client import FingerFile, SampleFile, file_of, finger_files, sample, sample_files, words
from rekam.errors import InvalidRequest
from rekam.position import Position
from rekam.v1 import types_pb2

RIGHT_THUMB, UNKNOWN = FingerPosition.RIGHT_THUMB, FingerPosition.UNKNOWN
RIGHT, LEFT, EITHER = EyePosition.RIGHT, EyePosition.LEFT, EyePosition.UNKNOWN


def written(folder: Path, name: str, content: bytes = b"image") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def is_position(told: Position, expected: Position) -> bool:
    """Equal and of one type: a finger and an eye of one code are equal numbers."""
    return type(told) is type(expected) and told == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("right_thumb.png", RIGHT_THUMB),
        ("Right-Thumb_2.PNG", RIGHT_THUMB),
        ("01.wsq", RIGHT_THUMB),
        ("1_3.bmp", RIGHT_THUMB),
        ("unknown.png", UNKNOWN),
        ("right_eye.png", RIGHT),
        ("eye_left.jp2", LEFT),
        ("left-eye_2.bmp", LEFT),
        ("iris_right.png", RIGHT),
        ("left_iris_10.png", LEFT),
        ("eye.png", EITHER),
        ("unknown_eye.png", EITHER),
        ("face.jpg", None),
        ("Portrait_1.JPEG", None),
    ],
)
def test_a_name_tells_what_a_file_shows(tmp_path: Path, name: str, expected: Position) -> None:
    [file] = sample_files([written(tmp_path, name)])
    assert is_position(file.position, expected)


@pytest.mark.parametrize("name", ["scan.png", "left.png", "11.png", "third_eye.png", "surface.png", "_.png"])
def test_a_name_that_tells_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="tells no finger, eye or face"):
        sample_files([written(tmp_path, name)])
    # One file to be judged is a fingerprint where nothing else is said.
    path = tmp_path / name
    assert is_position(file_of(path, None).position, UNKNOWN)
    assert is_position(file_of(path, Modality.IRIS).position, EITHER)
    assert file_of(path, Modality.FACE).position is None


def test_what_was_said_goes_before_another_modalitys_name(tmp_path: Path) -> None:
    path = written(tmp_path, "right_eye.png")
    assert is_position(file_of(path, None).position, RIGHT)
    assert is_position(file_of(path, Modality.IRIS).position, RIGHT)
    assert is_position(file_of(path, Modality.FINGERPRINT).position, UNKNOWN)
    assert file_of(path, Modality.FACE).position is None


def test_a_record_tells_what_it_shows_where_its_name_does_not(tmp_path: Path, development_data: Path) -> None:
    paired, other = development_data / "conformance" / "paired", development_data / "conformance" / "iso19794"
    expected: dict[Path, Position] = {
        paired / "info_left_auth.iso": LEFT,
        paired / "info_right_registration.iso": RIGHT,
        paired / "info_face_auth.iso": None,
        other / "Automatic" / "Auth" / "0001Left_Index.iso": FingerPosition.LEFT_INDEX,
        other / "iris_2005_two_eyes.raw": EITHER,
    }
    for record, position in expected.items():
        data = record.read_bytes()
        for name in ("record.iso", "unknown.iso"):
            [file] = sample_files([written(tmp_path, name, data)])
            assert is_position(file.position, position), record
        # A name that tells goes before; whoever decodes the record finds the contradiction.
        [named] = sample_files([written(tmp_path, "right_thumb.iso", data)])
        assert is_position(named.position, RIGHT_THUMB)
    [damaged] = sample_files([written(tmp_path, "damaged.iso", b"IIR\x00nothing")])
    assert is_position(damaged.position, EITHER)


def test_only_fingers_where_only_fingers_are_wanted(tmp_path: Path) -> None:
    thumb = written(tmp_path, "right_thumb.png")
    assert finger_files([thumb]) == [FingerFile(RIGHT_THUMB, thumb)]
    written(tmp_path, "left_eye.png")
    with pytest.raises(InvalidRequest, match=r"left_eye\.png shows no finger: left eye"):
        finger_files([tmp_path])


def test_a_sample_says_of_its_modality_what_belongs_to_it(tmp_path: Path) -> None:
    path = written(tmp_path, "any.png")
    made = [
        sample(SampleFile(position, path), 500, best_effort=True) for position in (RIGHT_THUMB, LEFT, None)
    ]
    assert [m.modality for m in made] == [
        types_pb2.MODALITY_FINGERPRINT,
        types_pb2.MODALITY_IRIS,
        types_pb2.MODALITY_FACE,
    ]
    assert [m.WhichOneof("position") for m in made] == ["finger", "eye", None]
    assert [(int(m.finger), int(m.eye), m.ppi) for m in made] == [(1, 0, 500), (0, 2, 0), (0, 0, 0)]
    assert all(m.best_effort and m.image == b"image" for m in made)


def test_positions_have_words() -> None:
    assert [words(p) for p in (RIGHT_THUMB, LEFT, EITHER, None)] == [
        "right thumb",
        "left eye",
        "unknown eye",
        "face",
    ]
