"""The best of a stream: a few frames kept by the assistance's judgement, one chosen by the full quality."""

from collections.abc import Callable
from dataclasses import dataclass

from capture.quality import Feedback, Quality
from devices.frame import Frame


@dataclass(frozen=True, slots=True)
class Params:
    """`keep`: how many frames the full quality is asked of; `apart`: by how much their numbers differ.

    Neighbours show the same moment: if one is spoilt by what the assistance does not see, so is the other.
    """

    keep: int = 3
    apart: int = 3


PARAMS = Params()


@dataclass(frozen=True, slots=True, eq=False)
class Considered:
    """A frame that was kept, its live quality, and the full one."""

    frame: Frame
    live: Quality
    full: Quality

    @property
    def words(self) -> str:
        """One line: `frame 12: quality 63 (live 71), head_tilted`."""
        complaints = ", ".join(self.full.feedback) or "nothing to complain of"
        unusable = "" if self.full.usable else ", not usable"
        return (
            f"frame {self.frame.number}: quality {self.full.score} (live {self.live.score})"
            f"{unusable}, {complaints}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class BestFrame:
    """The frames that were kept, the chosen one first, and how many there were to choose from."""

    considered: tuple[Considered, ...]
    seen: int

    @property
    def frame(self) -> Frame:
        """The chosen one."""
        return self.considered[0].frame

    @property
    def quality(self) -> Quality:
        """Its full quality; it may be unusable, if all of them are."""
        return self.considered[0].full

    @property
    def why(self) -> str:
        """Why this one, in words."""
        best, *others = self.considered
        if not others:
            return f"Of {self.seen} frames, {best.words}."
        worse = "; ".join(one.words for one in others)
        return f"Of {self.seen} frames, {best.words}. Passed over: {worse}."


class FrameChoice:
    """Keeps the best of the frames it is shown, in bounded memory. Not thread-safe."""

    __slots__ = ("_kept", "_params", "_seen")

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params
        self._kept: list[tuple[Frame, Quality]] = []
        self._seen = 0

    def show(self, frame: Frame, live: Quality) -> None:
        """One more frame of the stream and its quality by the assistance (not the steady advice)."""
        self._seen += 1
        near = [one for one in self._kept if abs(one[0].number - frame.number) < self._params.apart]
        if any(_merit(quality) >= _merit(live) for _, quality in near):
            return
        far = [one for one in self._kept if one not in near]
        best = sorted([*far, (frame, live)], key=lambda one: _merit(one[1]), reverse=True)
        self._kept = best[: self._params.keep]

    def best(self, full: Callable[[Frame], Quality]) -> BestFrame | None:
        """Choose by the `full` quality, asked of each frame that was kept; None where none was shown.

        Fewest complaints first, then the score; at a tie the one that looked better live.
        """
        considered = [Considered(frame, live, full(frame)) for frame, live in self._kept]
        considered.sort(key=lambda one: _merit(one.full), reverse=True)
        return BestFrame(tuple(considered), self._seen) if considered else None


def _merit(quality: Quality) -> tuple[bool, int, int]:
    """Complaints count before the score: a portrait has to satisfy the standard, not only compare well."""
    complaints: tuple[Feedback, ...] = quality.feedback
    return quality.usable, -len(complaints), quality.score
