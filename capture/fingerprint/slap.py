"""A slap into its fingers: one image of several fingers of one hand, or of two thumbs, to one sample each.

Fingers are looked for as they lie: upright boxes full of ridges, free at the tip and on both sides, side by
side along the hand. How many were asked for is never assumed while they are looked for, so that three of four
come out as three. Which hand it is shows in the arc of the tips and in the fingers' widths.
"""

from dataclasses import dataclass
from math import cos, exp, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.extract import to_500_ppi
from capture.sample import FingerPosition, Sample
from capture.trace import Trace, no_trace

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Params:
    """Lengths in pixels at 500 ppi unless said otherwise.

    `fine`, `coarse`: of the difference of Gaussians that lets ridges pass, `spread` over which their strength
    is taken; `least_energy` in grey levels and `share_of_strong`: where there are ridges; `widths` of the
    boxes, how `long` they are for their width and how long a `whole` last phalanx is; `least_score` of a box,
    and `sure_score` of one which is less `aside` of another, relative to both widths. What lies within `own`
    widths of its axis is a finger's own; `trust` is put in the lean that is seen.
    A finger ends where fewer than `edge` of the pixels are ridges at least `faint` times as strong as usual,
    its last phalanx where fewer than `joint` are. `margin` around a finger's image; `at_edge`: this near to
    the glass's edge it is cut off.

    `behind`, `behind_spread`: index to little finger, how far its tip lies behind the middle one's, mm;
    `width`, `width_spread`: its width relative to the others'; `lean`: how far the hand's axis may be wrong,
    degrees. Below a confidence of `other_hand` it is the other hand.
    """

    fine: float = 1.6
    coarse: float = 4.4
    spread: float = 12.0
    least_energy: float = 2.5
    share_of_strong: float = 0.35
    widths: tuple[int, ...] = (150, 180, 220, 260, 300, 345, 395)
    long: float = 1.35
    whole: float = 1.65
    least_score: float = 0.42
    sure_score: float = 0.6
    aside: float = 0.32
    hardly_aside: float = 0.22
    own: float = 0.56
    most_tilt: float = 55.0
    most_lean: float = 12.0
    trust: float = 0.65
    edge: float = 0.4
    faint: float = 0.5
    joint: float = 0.6
    margin: int = 16
    at_edge: float = 10.0
    behind: tuple[float, ...] = (11.0, 0.0, 9.0, 29.0)
    behind_spread: tuple[float, ...] = (4.0, 3.0, 4.0, 7.0)
    width: tuple[float, ...] = (0.97, 1.02, 0.95, 0.84)
    width_spread: float = 0.09
    lean: float = 7.0
    other_hand: float = 0.05


_PARAMS = Params()
_MM = 500 / 25.4
_STEP = 4  # pixels at 500 ppi to one of the maps
_RIGHT = tuple(FingerPosition(code) for code in (2, 3, 4, 5))
_LEFT = tuple(FingerPosition(code) for code in (10, 9, 8, 7))
_THUMBS = (FingerPosition.LEFT_THUMB, FingerPosition.RIGHT_THUMB)


@dataclass(frozen=True, slots=True, eq=False)
class SlapFinger:
    """One finger of a slap.

    `sample`: its last phalanx, upright, at 500 ppi. `corners` `(4, 2) float32`: x and y in the slap at 500
    ppi, from the tip's left clockwise; `angle`: degrees it leans to the right; `cut_off`: part of it lies
    beyond the glass.
    """

    sample: Sample
    corners: Floats
    angle: float
    cut_off: bool

    @property
    def position(self) -> FingerPosition:
        """Which finger it is; unknown where the count or the hand was wrong."""
        return self.sample.position


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """As many fingers as asked for, from left to right.

    `hand`: confidence 0 to 1 that it is the hand asked for, 0.5 where nothing tells (thumbs, one finger).
    """

    fingers: tuple[SlapFinger, ...]
    tilt: float
    hand: float


@dataclass(frozen=True, slots=True, eq=False)
class WrongCount:
    """More or fewer fingers than asked for, from left to right; which ones is not known."""

    fingers: tuple[SlapFinger, ...]
    asked: tuple[FingerPosition, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OtherHand:
    """As many fingers as asked for, of the other hand; `hand`: confidence that it is the one asked for."""

    fingers: tuple[SlapFinger, ...]
    hand: float


@dataclass(frozen=True, slots=True, eq=False)
class CutOff:
    """As many fingers as asked for, but some lie partly beyond the glass."""

    fingers: tuple[SlapFinger, ...]
    cut_off: tuple[FingerPosition, ...]


Segmentation = Segmented | WrongCount | OtherHand | CutOff


@dataclass(frozen=True, slots=True)
class _Box:
    """A finger roughly, in the turned map: middle of its tip and its width, map pixels."""

    x: float
    y: float
    width: float
    score: float


def segment(
    slap: Sample,
    positions: tuple[FingerPosition, ...],
    trace: Trace = no_trace,
    params: Params = _PARAMS,
) -> Segmentation:
    """The fingers of `slap`, dark ridges on light ground, asked for as `positions` without missing ones.

    `positions` are of one hand without its thumb, or of the thumbs; raises `ValueError` for any other. Trace
    keys: `ridge_energy`, `ridges`, `upright`. Cost: `python -m benchmarks.slaps`. Thread-safe.
    """
    asked = as_they_lie(positions)
    image = to_500_ppi(slap).image
    if min(image.shape) < params.widths[0]:
        return WrongCount((), asked)
    band = _band(image, params)
    energy = _energy(band, params)
    trace("ridge_energy", energy)
    ridges = _ridges(energy, params)
    trace("ridges", ridges)
    tilt = _tilt(ridges, params)
    upright, back = _turned(ridges, tilt)
    trace("upright", upright)
    boxes = _boxes(upright, params)
    found = [_finger(image, band, boxes, nth, tilt, back, params) for nth in range(len(boxes))]
    if len(found) != len(asked):
        return WrongCount(tuple(_named(image, one, FingerPosition.UNKNOWN, params) for one in found), asked)
    fingers = tuple(_named(image, *pair, params) for pair in zip(found, asked, strict=True))
    if any(one.cut_off for one in fingers):
        return CutOff(fingers, tuple(one.position for one in fingers if one.cut_off))
    hand = _confidence(found, asked, params)
    if hand < params.other_hand:
        return OtherHand(tuple(_named(image, one, FingerPosition.UNKNOWN, params) for one in found), hand)
    return Segmented(fingers, tilt, hand)


def as_they_lie(positions: tuple[FingerPosition, ...]) -> tuple[FingerPosition, ...]:
    """Fingers of a slap from left to right; raises `ValueError` for what does not make one."""
    for hand in (_RIGHT, _LEFT, _THUMBS):
        if positions and set(positions) <= set(hand) and len(set(positions)) == len(positions):
            return tuple(position for position in hand if position in positions)
    raise ValueError(f"no slap shows {', '.join(position.words for position in positions) or 'no finger'}")


def _band(image: NDArray[np.uint8], params: Params) -> Floats:
    """What has the fineness of ridges `(H / 2, W / 2) float32`, grey levels: no halo, shade or smear."""
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = cv2.GaussianBlur(half, (0, 0), params.fine / 2)
    return np.asarray(fine - cv2.GaussianBlur(half, (0, 0), params.coarse / 2), np.float32)


def _energy(band: Floats, params: Params) -> Floats:
    """Strength of the ridges `(H / 4, W / 4) float32`, grey levels."""
    spread = cv2.GaussianBlur(band * band, (0, 0), params.spread / 2)
    small = cv2.resize(spread, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(np.sqrt(np.maximum(small, 0)), np.float32)


def _ridges(energy: Floats, params: Params) -> Floats:
    """How surely there are ridges `(H / 4, W / 4) float32`, 0 to 1; no crumbs, no hairs."""
    strong = float(np.percentile(energy, 97))
    level = max(params.least_energy, params.share_of_strong * strong)
    sure = np.clip(energy / np.float32(level) - 0.5, 0, 1).astype(np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15))
    closed = cv2.morphologyEx(sure, cv2.MORPH_CLOSE, disc[::2, ::2].copy())
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, disc), np.float32)


def _tilt(ridges: Floats, params: Params) -> float:
    """Degrees the hand leans to the right: the direction in which the fingers' sides run.

    Slopes of the blurred map point across the sides; at tips and joints they point all ways.
    """
    smooth = cv2.GaussianBlur(ridges, (0, 0), 6)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    across = float((dx * dx - dy * dy).sum()), float(2 * (dx * dy).sum())
    return float(
        np.clip(np.degrees(np.arctan2(across[1], across[0])) / 2, -params.most_tilt, params.most_tilt)
    )


def _turned(ridges: Floats, tilt: float) -> tuple[Floats, NDArray[np.float64]]:
    """The map turned upright with all of it inside, and the affine map `(2, 3)` back."""
    height, width = ridges.shape
    c, s = cos(radians(-tilt)), sin(radians(-tilt))
    turn = np.array([[c, -s], [s, c]])
    size = np.abs(turn) @ np.array([width, height])
    shift = size / 2 - turn @ np.array([width, height]) / 2
    move = np.column_stack([turn, shift])
    turned = cv2.warpAffine(ridges, move, (round(size[0]), round(size[1])), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.float32), cv2.invertAffineTransform(move).astype(np.float64)


def _boxes(upright: Floats, params: Params) -> list[_Box]:
    """Fingers from left to right: boxes full of ridges, with none above and beside, the upper of two."""
    candidates: list[_Box] = []
    scores = [_box_scores(upright, width / _STEP, params) for width in params.widths]
    best = np.max(scores, 0)
    which = np.argmax(scores, 0)
    peaks = (best >= params.least_score) & (best >= cv2.dilate(best, np.ones((25, 25), np.uint8)))
    for y, x in np.argwhere(peaks):
        candidates.append(_Box(float(x), float(y), params.widths[which[y, x]] / _STEP, float(best[y, x])))
    # The highest come first; what lies below in the same columns is the rest of that finger, unless it is
    # clearly free and farther out than any other: a little finger below the ring finger.
    chosen: list[_Box] = []
    for box in sorted(candidates, key=lambda one: (one.y, one.x)):
        aside = min((abs(box.x - one.x) / (box.width + one.width) for one in chosen), default=1.0)
        outermost = all(box.x < one.x for one in chosen) or all(box.x > one.x for one in chosen)
        sure = outermost and box.score >= params.sure_score
        if aside > (params.hardly_aside if sure else params.aside):
            chosen.append(box)
    return sorted(chosen, key=lambda one: one.x)


def _box_scores(upright: Floats, width: float, params: Params) -> Floats:
    """Score of a box `(h, w)` by the middle of its upper side: how full it is, less what is around it."""
    w, h, rim = round(width), round(width * params.long), max(3, round(width * 0.16))
    sums = cv2.integral(np.pad(upright, ((h, h), (w, w))), sdepth=cv2.CV_64F).astype(np.float64)
    rows, columns = upright.shape

    def mean(left: int, top: int, right: int, bottom: int) -> NDArray[np.float64]:
        """Of the box with these corners, seen from the middle of the upper side of each."""
        y0, y1, x0, x1 = h + top, h + bottom, w + left, w + right
        total: NDArray[np.float64] = (
            sums[y1 : y1 + rows, x1 : x1 + columns]
            - sums[y0 : y0 + rows, x1 : x1 + columns]
            - sums[y1 : y1 + rows, x0 : x0 + columns]
            + sums[y0 : y0 + rows, x0 : x0 + columns]
        )
        return total / ((y1 - y0) * (x1 - x0))

    half = w // 2
    inside = mean(-half, 0, half, h)
    beside = mean(-half - rim, 0, -half, h) + mean(half, 0, half + rim, h)
    above = mean(-half // 2, -rim, half // 2, 0)
    return np.asarray(inside - 0.3 * beside - 0.5 * above, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A finger in the slap at 500 ppi: the middle of its box, its size, its lean in degrees."""

    middle: tuple[float, float]
    width: float
    height: float
    angle: float
    cut_off: bool

    def corners(self, margin: float = 0.0) -> Floats:
        """The box's corners `(4, 2)`, from the tip's left clockwise."""
        x, y = self.width / 2 + margin, self.height / 2 + margin
        c, s = cos(radians(self.angle)), sin(radians(self.angle))
        around = np.array([[-x, -y], [x, -y], [x, y], [-x, y]]) @ np.array([[c, s], [-s, c]])
        return np.asarray(around + self.middle, np.float32)


def _finger(
    image: NDArray[np.uint8],
    band: Floats,
    boxes: list[_Box],
    nth: int,
    tilt: float,
    back: NDArray[np.float64],
    params: Params,
) -> _Found:
    """The box of one finger exactly: its own lean, its sides, its tip, and the joint below."""
    box = boxes[nth]
    # 1. What is nearer to this finger than to its neighbours, at 250 ppi, turned as the hand is.
    reach = 0.85 * box.width
    half = params.own * box.width
    left = min(max([(one.x + box.x) / 2 for one in boxes[:nth]] + [box.x - reach]), box.x - half)
    right = max(min([(one.x + box.x) / 2 for one in boxes[nth + 1 :]] + [box.x + reach]), box.x + half)
    middle = back @ np.array([box.x, box.y + 0.7 * box.width, 1.0]) * _STEP
    room = int(2.6 * box.width), int(4.4 * box.width)
    strip = _strip(band, middle, tilt, room, params)
    columns = (np.arange(strip.shape[1]) - strip.shape[1] / 2) / 2 + box.x
    rows = (np.arange(strip.shape[0]) - strip.shape[0] / 2) / 2 + box.y + 0.7 * box.width
    # 2. Its lean: where the middle of its ridges lies from row to row; halfway to none, for it is uncertain.
    own = strip * ((columns > left) & (columns < right))
    along = (rows > box.y + 0.15 * box.width) & (rows < box.y + params.long * box.width)
    weight = own[along].sum(1) + 1e-6
    centre = (own[along] * columns).sum(1) / weight
    slope = np.polyfit(rows[along], centre, 1, w=np.sqrt(weight))[0]
    seen = -params.trust * float(np.degrees(np.arctan(slope)))
    lean = float(np.clip(seen, -params.most_lean, params.most_lean))
    # 3. Turned as the finger is: sides and tip where ridges end, then the joint.
    angle = tilt + lean
    strip = _strip(band, middle, angle, room, params)
    x = np.arange(strip.shape[1]) - strip.shape[1] / 2
    y = np.arange(strip.shape[0]) - strip.shape[0] / 2
    unit = 2 * box.width  # pixels at 250 ppi
    limits = 2 * (left - box.x), 2 * (right - box.x)
    trunk = (y > -0.6 * unit) & (y < 0.5 * unit)
    across = _smooth(strip[trunk].mean(0), 3) * ((x > limits[0]) & (x < limits[1]))
    x0, x1 = _extent(across, x, params.edge)
    down = _smooth(strip[:, (x > 0.7 * x0 + 0.3 * x1) & (x < 0.3 * x0 + 0.7 * x1)].mean(1), 3)
    y0, y1 = _phalanx(down, y, x1 - x0, params)
    c, s = cos(radians(angle)), sin(radians(angle))
    off = np.array([x0 + x1, y0 + y1])  # the middle, twice, at 250 ppi: pixels at 500
    at = middle + np.array([[c, -s], [s, c]]) @ off
    found = _Found((float(at[0]), float(at[1])), 2 * (x1 - x0), 2 * (y1 - y0), angle, False)
    cut = _beyond(found, image.shape, params)
    return _Found(found.middle, found.width, found.height, angle, cut)


def _strip(
    band: Floats, middle: NDArray[np.float64], angle: float, size: tuple[int, int], params: Params
) -> Floats:
    """Ridges `(2 * size[1], 2 * size[0]) float32`, 0 to 1, at 250 ppi around a place of the slap, upright.

    Faint ones count as much as strong ones, measured by what is usual in the middle.
    """
    c, s = cos(radians(angle)), sin(radians(angle))
    turn = np.array([[c, -s], [s, c]])
    width, height = 2 * size[0], 2 * size[1]
    move = np.column_stack([turn, middle / 2 - turn @ np.array([width / 2, height / 2])])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    strip = cv2.warpAffine(band, move, (width, height), flags=flags)
    strength = cv2.blur(strip * strip, (11, 11))
    usual = float(np.percentile(strength[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3], 60))
    return np.asarray(np.clip(strength / max(params.faint * usual, 1.0), 0, 1), np.float32)


def _smooth(profile: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(profile[:, None].astype(np.float32), (0, 0), sigma)[:, 0], np.float32)


def _extent(profile: Floats, x: NDArray[np.float64], edge: float) -> tuple[float, float]:
    """From where to where around the middle the profile keeps a share of its strength."""
    inner = profile[np.abs(x) < 0.15 * len(x)]
    strong = profile >= edge * np.median(inner)
    middle = len(x) // 2
    before, after = np.flatnonzero(~strong[:middle]), np.flatnonzero(~strong[middle:])
    first = before[-1] + 1 if len(before) else 0
    last = middle + after[0] if len(after) else len(x)
    return float(x[min(first, middle - 1)]), float(x[min(last, len(x) - 1)])


def _phalanx(profile: Floats, y: NDArray[np.float64], width: float, params: Params) -> tuple[float, float]:
    """Tip and joint: where the profile begins, and where it gives way or a whole phalanx is at its end."""
    rough = len(y) // 2 - round(0.35 * width)
    level = float(np.median(profile[rough : rough + round(0.8 * width)]))
    weak = np.flatnonzero(profile[:rough] < params.edge * level)
    tip = int(weak[-1]) + 1 if len(weak) else 0
    first, last = tip + round(1.15 * width), min(tip + round(2.1 * width), len(y) - 1)
    expected = min(tip + round(params.whole * width), len(y) - 1)
    if first >= last:
        return float(y[tip]), float(y[expected])
    # A valley counts by its depth, less where a joint is not likely.
    at = np.arange(first, last)
    depth = 1 - profile[at] / np.float32(level) - 0.5 * np.abs(at - expected) / width
    joint = first + int(depth.argmax())
    if profile[joint] > params.joint * level:
        return float(y[tip]), float(y[expected])
    strong = np.flatnonzero(profile[tip:joint] > params.joint * level)
    return float(y[tip]), float(y[tip + (int(strong[-1]) if len(strong) else joint - tip)])


def _beyond(found: _Found, shape: tuple[int, ...], params: Params) -> bool:
    """Whether the tip or a side is at the glass's edge, or the lower end of a phalanx that is short."""
    a, b, c, d = found.corners()
    short = found.height < 1.25 * found.width
    for start, end, counts in ((a, b, True), (a, d, True), (b, c, True), (d, c, short)):
        spots = start + np.linspace(0, 1, 21)[:, None] * (end - start)
        size = np.array(shape[1::-1])
        outside = ((spots < params.at_edge) | (spots > size - params.at_edge)).any(1)
        if counts and outside.mean() > 0.3:
            return True
    return False


def _named(image: NDArray[np.uint8], found: _Found, position: FingerPosition, params: Params) -> SlapFinger:
    """The finger's own image, upright."""
    corners = found.corners()
    around = found.corners(params.margin)
    width, height = round(found.width) + 2 * params.margin, round(found.height) + 2 * params.margin
    move = cv2.getAffineTransform(around[[0, 1, 3]], np.array([[0, 0], [width, 0], [0, height]], np.float32))
    light = int(np.percentile(image[::8, ::8], 90))
    cut = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_CUBIC, borderValue=light)
    return SlapFinger(Sample(cut.astype(np.uint8), 500.0, position), corners, found.angle, found.cut_off)


def _confidence(found: list[_Found], asked: tuple[FingerPosition, ...], params: Params) -> float:
    """Confidence that these are the fingers asked for and not their counterparts of the other hand.

    The tips' arc and the widths under each hypothesis, normally distributed; where the hand as a whole lies,
    how large it is and a small turn of it tell nothing.
    """
    if len(asked) < 2 or set(asked) <= set(_THUMBS):
        return 0.5
    # 1. Tips in the hand's frame, mm: x along the knuckles, y behind.
    angle = radians(float(np.median([one.angle for one in found])))
    tips = np.array([one.corners()[:2].mean(0) for one in found]) / _MM
    x = tips @ np.array([cos(angle), sin(angle)])
    y = tips @ np.array([-sin(angle), cos(angle)])
    widths = np.log([one.width for one in found])
    # 2. The likelihood of each hand: the digits asked for in their order, and the other hand's in its order.
    digits = np.array([(position - 1) % 5 - 1 for position in asked])
    this, other = (_log_likelihood(x, y, widths, order, params) for order in (digits, digits[::-1]))
    return 1 / (1 + exp(float(np.clip(other - this, -30, 30))))


def _log_likelihood(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    widths: NDArray[np.float64],
    digits: NDArray[np.int64],
    params: Params,
) -> float:
    """Of tips and widths from left to right being these digits (0 index to 3 little finger)."""
    one = np.ones((len(x), len(x)))
    off = x - x.mean()
    behind, spread = (np.array(values)[digits] for values in (params.behind, params.behind_spread))
    covariance = np.diag(spread**2) + 1e4 * one + np.tan(radians(params.lean)) ** 2 * np.outer(off, off)
    total = _log_normal(y - behind, covariance)
    relative = np.log(np.array(params.width)[digits])
    return total + _log_normal(widths - relative, params.width_spread**2 * np.eye(len(x)) + 1e2 * one)


def _log_normal(residual: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    _, logarithm = np.linalg.slogdet(covariance)
    return -0.5 * float(residual @ np.linalg.solve(covariance, residual) + logarithm)
