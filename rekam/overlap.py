"""Where two prints lie on each other: the placement that their pairs agree on, and what lies within both.

The comparison itself needs no placement; people do. It is fitted to the pairs the score rests on, so it says
what the score saw: where the wrong minutiae were paired, few of them agree and there may be no placement.
"""

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.fingerprint.template import TEMPLATE_PPI, FingerprintTemplate
from matching.fingerprint import cylinders

_Points = NDArray[np.float64]
_Mask = NDArray[np.bool_]

MM2_PER_PIXEL = (25.4 / TEMPLATE_PPI) ** 2


@dataclass(frozen=True, slots=True)
class Params:
    """Lengths in pixels at 500 ppi, angles in radians.

    `agree`, `agree_turn`: how far a pair may be off the placement and still agree with it. `min_agreeing`:
    pairs that make a placement. `mate`, `mate_turn`: how far two minutiae may lie apart, the skin's stretch
    allowed for, and be one. `reach`: of a pair's say in that stretch. `margin`: print around the minutiae
    where no image shows where it ends.
    """

    agree: float = 15.0
    agree_turn: float = np.pi / 6
    min_agreeing: int = 3
    mate: float = 10.0
    mate_turn: float = np.pi / 6
    reach: float = 60.0
    margin: float = 20.0


PARAMS = Params()


class Role(IntEnum):
    """What a minutia has to do with the score.

    `COUNTED`: in a pair the score rests on. `AGREES`: in none, but the other print has it too. `ALONE`:
    within the overlap, and the other print lacks it. `ASIDE`: outside the overlap, or not reliable.
    """

    COUNTED = 0
    AGREES = 1
    ALONE = 2
    ASIDE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What two prints have in common; arrays are read-only.

    `turn`: by how much B is turned against A, radians counter-clockwise, -pi to pi. `agreeing` `(k,) bool`:
    pairs that fit the placement. `stretch`: how far those are off it, root mean square, pixels. `region_a`,
    `region_b` `(H, W) bool`: the common part on each print. `roles_a`, `roles_b` `(n,) uint8`: the `Role` of
    each minutia. `area`: of the common part, square millimetres; `share`: of the smaller print.
    """

    turn: float
    agreeing: _Mask
    stretch: float
    region_a: _Mask
    region_b: _Mask
    roles_a: NDArray[np.uint8]
    roles_b: NDArray[np.uint8]
    area: float
    share: float

    def __post_init__(self) -> None:
        for array in (self.agreeing, self.region_a, self.region_b, self.roles_a, self.roles_b):
            array.setflags(write=False)


def overlap(
    a: FingerprintTemplate,
    b: FingerprintTemplate,
    pairs: NDArray[np.int32],
    contributions: NDArray[np.float32],
    print_a: _Mask | None = None,
    print_b: _Mask | None = None,
) -> Overlap | None:
    """Place A on B by `pairs` `(k, 2)` of their minutiae; None where too few agree on any placement.

    `print_a`, `print_b` `(H, W) bool` say where each print is; without, that is guessed from its minutiae.
    Cost: about 5 ms. Thread-safe.
    """
    # 1. The rigid motion that most of the weight agrees on.
    points_a, points_b = _points(a)[pairs[:, 0]], _points(b)[pairs[:, 1]]
    turns = _wrapped(b.direction[pairs[:, 1]].astype(np.float64) - a.direction[pairs[:, 0]])
    motion, agreeing = _placement(points_a, points_b, turns, contributions.astype(np.float64))
    if agreeing.sum() < PARAMS.min_agreeing:
        return None
    missed = points_b[agreeing] - _moved(points_a[agreeing], motion)

    # 2. The part of each print that the other shows too.
    print_a = _around_minutiae(a) if print_a is None else print_a
    print_b = _around_minutiae(b) if print_b is None else print_b
    region_a = print_a & _warped(print_b, _inverse(motion), print_a.shape)
    region_b = print_b & _warped(print_a, motion, print_b.shape)

    # 3. What each minutia there has to do with the score.
    roles_a, roles_b = _roles(a, region_a), _roles(b, region_b)
    roles_a[pairs[:, 0]] = roles_b[pairs[:, 1]] = Role.COUNTED
    lone_a, lone_b = np.flatnonzero(roles_a == Role.ALONE), np.flatnonzero(roles_b == Role.ALONE)
    moved = _moved(_points(a)[lone_a], motion)
    moved += _stretched(moved, points_b[agreeing], missed)
    turned = a.direction[lone_a].astype(np.float64) + _turn(motion)
    for i, j in _mates(moved, turned, _points(b)[lone_b], b.direction[lone_b].astype(np.float64)):
        roles_a[lone_a[i]] = roles_b[lone_b[j]] = Role.AGREES

    smaller = max(1, min(int(print_a.sum()), int(print_b.sum())))
    return Overlap(
        turn=_turn(motion),
        agreeing=agreeing,
        stretch=float(np.sqrt((missed**2).sum(axis=1).mean())),
        region_a=region_a,
        region_b=region_b,
        roles_a=roles_a,
        roles_b=roles_b,
        area=float(region_a.sum()) * MM2_PER_PIXEL,
        share=min(1.0, float(region_a.sum()) / smaller),
    )


def _points(template: FingerprintTemplate) -> _Points:
    return np.column_stack([template.x, template.y]).astype(np.float64)


def _wrapped(angle: _Points) -> _Points:
    """Angles to -pi .. pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _placement(p: _Points, q: _Points, turns: _Points, weight: _Points) -> tuple[_Points, _Mask]:
    """The motion `(2, 3)` from p to q, both `(k, 2)`, that pairs of most weight agree with, and those pairs.

    Every pair alone gives a motion by its minutiae's directions; the pairs near it refine it.
    """
    best, agreeing, most = np.zeros((2, 3)), np.zeros(len(p), np.bool_), 0.0
    for seed in range(len(p)):
        motion = _rigid(p[seed], q[seed], float(turns[seed]))
        near = _near(p, q, turns, motion, 2 * PARAMS.agree)
        for _ in range(3):
            if not near.any():
                break
            motion = _fitted(p[near], q[near], float(turns[seed]))
            near = _near(p, q, turns, motion, PARAMS.agree)
        if weight[near].sum() > most:
            best, agreeing, most = motion, near, float(weight[near].sum())
    return best, agreeing


def _near(p: _Points, q: _Points, turns: _Points, motion: _Points, distance: float) -> _Mask:
    off = np.linalg.norm(q - _moved(p, motion), axis=1)
    off_turn = np.abs(_wrapped(turns - _turn(motion)))
    near: _Mask = (off <= distance) & (off_turn <= PARAMS.agree_turn)
    return near


def _rigid(p: _Points, q: _Points, turn: float) -> _Points:
    """The motion that turns by `turn` counter-clockwise as seen (y is down) and takes point p to q."""
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[c, s], [-s, c]])
    return np.column_stack([rotation, q - rotation @ p])


def _fitted(p: _Points, q: _Points, turn: float) -> _Points:
    """The least-squares rigid motion; of a single pair, the one that turns by `turn`."""
    middle_p, middle_q = p.mean(axis=0), q.mean(axis=0)
    u, v = p - middle_p, q - middle_q
    along, across = (u * v).sum(), (u[:, 1] * v[:, 0] - u[:, 0] * v[:, 1]).sum()
    if along or across:
        turn = float(np.arctan2(across, along))
    return _rigid(middle_p, middle_q, turn)


def _turn(motion: _Points) -> float:
    return float(np.arctan2(motion[0, 1], motion[0, 0]))


def _moved(p: _Points, motion: _Points) -> _Points:
    moved: _Points = p @ motion[:, :2].T + motion[:, 2]
    return moved


def _inverse(motion: _Points) -> _Points:
    back = motion[:, :2].T
    return np.column_stack([back, -back @ motion[:, 2]])


def _warped(mask: _Mask, motion: _Points, shape: tuple[int, ...]) -> _Mask:
    size = (shape[1], shape[0])
    return cv2.warpAffine(mask.astype(np.uint8), motion, size, flags=cv2.INTER_NEAREST) > 0


def _around_minutiae(template: FingerprintTemplate) -> _Mask:
    """The convex hull of the reliable minutiae with a margin: what of a print is known without its image."""
    mask = np.zeros((template.height, template.width), np.uint8)
    used = template.reliability >= cylinders.PARAMS.min_reliability
    points = np.rint(_points(template)[used]).astype(np.int32)
    if len(points):
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
        side = 2 * round(PARAMS.margin) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))).astype(np.uint8)
    return mask > 0


def _roles(template: FingerprintTemplate, region: _Mask) -> NDArray[np.uint8]:
    """`ALONE` for reliable minutiae within the region, `ASIDE` for the others."""
    column = np.clip(np.rint(template.x).astype(np.int64), 0, region.shape[1] - 1)
    row = np.clip(np.rint(template.y).astype(np.int64), 0, region.shape[0] - 1)
    used = (template.reliability >= cylinders.PARAMS.min_reliability) & region[row, column]
    return np.where(used, np.uint8(Role.ALONE), np.uint8(Role.ASIDE)).astype(np.uint8)


def _stretched(places: _Points, pairs: _Points, missed: _Points) -> _Points:
    """By how much the skin is stretched at `places` `(m, 2)`: what nearby pairs missed, fading."""
    distance = ((places[:, None] - pairs[None]) ** 2).sum(axis=2)
    say = np.exp(-distance / (2 * PARAMS.reach**2))
    shift: _Points = (say @ missed) / (say.sum(axis=1, keepdims=True) + 0.5)
    return shift


def _mates(p: _Points, turn_p: _Points, q: _Points, turn_q: _Points) -> list[tuple[int, int]]:
    """One-to-one pairs of minutiae that lie together and point the same way, nearest first."""
    distance = np.linalg.norm(p[:, None] - q[None], axis=2)
    together = np.abs(_wrapped(turn_p[:, None] - turn_q[None])) <= PARAMS.mate_turn
    mates: list[tuple[int, int]] = []
    taken_p, taken_q = set[int](), set[int]()
    for k in np.argsort(distance, axis=None, kind="stable"):
        i, j = divmod(int(k), len(q))
        if distance[i, j] > PARAMS.mate:
            break
        if together[i, j] and i not in taken_p and j not in taken_q:
            mates.append((i, j))
            taken_p.add(i)
            taken_q.add(j)
    return mates
