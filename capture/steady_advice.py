"""Advice on a live picture that does not flicker."""

from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from capture.quality import Feedback

Measures = Mapping[str, float]
Judge = Callable[[Measures], tuple[Feedback, ...]]


class SteadyAdvice:
    """Feedback from the medians of the last frames' measures, in the order of the judges' own.

    `appears` says which words begin to be shown, `stays` which of them go on being shown: it has narrower
    limits, so that a measure that hovers at a limit does not turn its word on and off. Medians, because one
    bad frame (a blink, a box found wrongly) says nothing. Not thread-safe.
    """

    __slots__ = ("_appears", "_missing", "_recent", "_shown", "_stays")

    def __init__(self, appears: Judge, stays: Judge, missing: Feedback, frames: int = 3) -> None:
        self._appears, self._stays, self._missing = appears, stays, missing
        self._recent: deque[Measures | None] = deque(maxlen=frames)
        self._shown: tuple[Feedback, ...] = ()

    def after(self, measures: Measures | None) -> tuple[Feedback, ...]:
        """What to show after a frame of these measures; None where it shows nothing to measure."""
        self._recent.append(measures)
        seen = [one for one in self._recent if one is not None]
        if 2 * len(seen) < len(self._recent):
            self._shown = (self._missing,)
            return self._shown
        medians = {name: float(np.median([one[name] for one in seen])) for name in seen[0]}
        begun = {*self._appears(medians), *self._shown}
        self._shown = tuple(word for word in self._stays(medians) if word in begun)
        return self._shown
