"""The demo's people, put together of folders."""

from pathlib import Path

from benchmarks.demo import Person, read_population
from capture.sample import EyePosition, FingerPosition

RIGHT, LEFT = EyePosition.RIGHT, EyePosition.LEFT


def touched(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_people_get_two_eyes_and_a_face_each_as_long_as_there_are_any(tmp_path: Path) -> None:
    prints, irises, faces = (tmp_path / name for name in ("prints", "irises", "faces"))
    for person in ("001", "002"):
        for n in range(1, 5):
            touched(prints / f"{person}06_{n}.png")
    for eye in ("a", "b", "c"):
        for n in range(1, 4):
            touched(irises / f"{eye}_{n}.png")
    touched(faces / "few" / "1.jpg")
    for n in range(1, 5):
        touched(faces / "many" / f"{n}.jpg")
    first, second = read_population(prints, irises, faces)

    def shown(person: Person, n: int) -> list[str]:
        return [f.path.relative_to(tmp_path).as_posix() for f in person.encounters[n]]

    # Enrolled and returning encounters take turns, so that both have eyes and faces.
    assert shown(first, 0) == ["prints/00106_1.png", "irises/a_1.png", "irises/b_1.png", "faces/many/1.jpg"]
    assert shown(first, 2) == ["prints/00106_3.png", "irises/a_2.png", "irises/b_2.png", "faces/many/2.jpg"]
    assert shown(first, 1) == ["prints/00106_2.png", "irises/a_3.png", "irises/b_3.png", "faces/many/3.jpg"]
    assert shown(first, 3) == ["prints/00106_4.png", "faces/many/4.jpg"]
    assert [f.position for f in first.encounters[0]] == [FingerPosition.RIGHT_THUMB, RIGHT, LEFT, None]
    assert shown(second, 0) == ["prints/00206_1.png", "irises/c_1.png", "faces/few/1.jpg"]
    assert shown(second, 2) == ["prints/00206_3.png", "irises/c_2.png"]
    assert len(first.enrolled) == len(first.returning) == 2
