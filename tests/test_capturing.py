"""What an encounter must hold: every finger and eye of what is required, or presented in part, no more."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.sample import EyePosition, FingerPosition, Modality
from rekam.capturing import require_complete
from rekam.errors import InvalidRequest
from rekam.exchange import Missing, MissingEye, MissingReason, Presentation
from rekam.position import Position

BANDAGED = MissingReason.BANDAGED
FINGERS = [position for position in FingerPosition if position]
RIGHT, LEFT, EITHER = EyePosition.RIGHT, EyePosition.LEFT, EyePosition.UNKNOWN
ALL = tuple(Modality)


def presentation(
    fingers: Sequence[FingerPosition] = (), eyes: Sequence[EyePosition] = (), *, face: bool = False
) -> Presentation:
    """An encounter that declares these missing."""
    return Presentation(
        "r",
        b"",
        (),
        tuple(Missing(finger, BANDAGED) for finger in fingers),
        tuple(MissingEye(eye, BANDAGED) for eye in eyes),
        BANDAGED if face else None,
    )


@pytest.mark.parametrize(
    ("positions", "missing", "required"),
    [
        (FINGERS, presentation(), ALL[:1]),
        ([*FINGERS, RIGHT, LEFT, None], presentation(), ALL),
        ([FingerPosition.UNKNOWN] * 10, presentation(), ALL[:1]),
        ([EITHER, EITHER], presentation(), [Modality.IRIS]),
        ([EITHER], presentation(eyes=[LEFT]), [Modality.IRIS]),
        ([RIGHT, EITHER], presentation(), [Modality.IRIS]),
        ([], presentation(eyes=[LEFT, RIGHT], face=True), [Modality.IRIS, Modality.FACE]),
        ([None], presentation(), [Modality.FACE]),
        ([None], presentation(), []),
        ([RIGHT, LEFT], presentation(FINGERS), ALL[:1]),
    ],
)
def test_complete(positions: list[Position], missing: Presentation, required: Sequence[Modality]) -> None:
    require_complete(missing, positions, required)


@pytest.mark.parametrize(
    ("positions", "missing", "required", "field", "says"),
    [
        ([], presentation(), ALL[:1], "samples", "right thumb, right index"),
        (FINGERS[:9], presentation(), [], "samples", "missing: left little"),
        (FINGERS, presentation(FINGERS[:1]), [], "missing", "declared missing: right thumb"),
        ([RIGHT], presentation(), [], "samples", "missing: left eye"),
        ([], presentation(eyes=[LEFT]), [], "samples", "missing: right eye"),
        ([], presentation(), [Modality.IRIS], "samples", "right eye, left eye"),
        ([RIGHT, LEFT], presentation(eyes=[LEFT]), [], "missing_eyes", "declared missing: left eye"),
        (
            [EITHER, EITHER],
            presentation(eyes=[LEFT]),
            [],
            "missing_eyes",
            "more eyes of unknown position (2) than are left",
        ),
        ([None], presentation(face=True), [], "missing_face", "the face"),
        ([], presentation(), [Modality.FACE], "samples", "the face"),
    ],
)
def test_incomplete(
    positions: list[Position],
    missing: Presentation,
    required: Sequence[Modality],
    field: str,
    says: str,
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        require_complete(missing, positions, required)
    [(path, text)] = refused.value.violations
    assert path == field
    assert says in text


@given(
    shown=st.sets(st.sampled_from(FINGERS)),
    eyes=st.sets(st.sampled_from([RIGHT, LEFT])),
    face=st.booleans(),
    required=st.sets(st.sampled_from(Modality)),
)
def test_what_is_shown_and_the_rest_declared_missing_is_complete(
    shown: set[FingerPosition], eyes: set[EyePosition], face: bool, required: set[Modality]
) -> None:
    positions: list[Position] = [*shown, *eyes, *([None] if face else [])]
    rest = presentation(
        [finger for finger in FINGERS if finger not in shown], list({RIGHT, LEFT} - eyes), face=not face
    )
    require_complete(rest, positions, required)
    # An eye is never taken for the finger of the same code.
    require_complete(presentation(FINGERS), [RIGHT, LEFT], required - {Modality.FACE})
