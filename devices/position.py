"""Where on the body a capture is from."""

from enum import IntEnum


class FingerPosition(IntEnum):
    """Finger codes of ISO/IEC 19794-2 and ANSI/NIST-ITL 1; 0 where the position is not known."""

    UNKNOWN = 0
    RIGHT_THUMB = 1
    RIGHT_INDEX = 2
    RIGHT_MIDDLE = 3
    RIGHT_RING = 4
    RIGHT_LITTLE = 5
    LEFT_THUMB = 6
    LEFT_INDEX = 7
    LEFT_MIDDLE = 8
    LEFT_RING = 9
    LEFT_LITTLE = 10

    @property
    def other_hand(self) -> "FingerPosition":
        """The same finger of the other hand; unknown stays unknown."""
        return FingerPosition((self + 4) % 10 + 1) if self else self

    @property
    def words(self) -> str:
        """The position as a person says it: `right index`."""
        return self.name.lower().replace("_", " ")


class EyePosition(IntEnum):
    """Eye codes of ISO/IEC 19794-6: the person's own right and left; 0 where it is not known which."""

    UNKNOWN = 0
    RIGHT = 1
    LEFT = 2

    @property
    def other(self) -> "EyePosition":
        """The other eye; unknown stays unknown."""
        return EyePosition(3 - self) if self else self

    @property
    def words(self) -> str:
        """The eye as a person says it: `right eye`."""
        return f"{self.name.lower()} eye"
