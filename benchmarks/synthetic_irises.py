"""Drawn eyes, for tests and for the demo: no person's iris is in them.

    python -m benchmarks.synthetic_irises FOLDER [--eyes 4] [--captures 2]

writes some as PNG. A drawn eye is a texture of fibres, crypts and a collarette between pupil and limbus, and
every capture of it has its own gaze, roll, pupil width, lids, lashes, reflections, light, blur and noise.
They exercise the pipeline from the image to the decision. Their error rates say nothing about real eyes:
textures of different eyes are independent noise, and the lids are as regular as the pipeline thinks they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from capture.iris.segmentation import Circle

WIDTH, HEIGHT = 320, 280
_ROWS, _COLUMNS = 96, 1024
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """How an eye is captured. Lids: height of their middle above and below that of the iris, in its radii.

    `roll` in radians, clockwise as seen; `lashes`, `reflections`: how many; `blur` in pixels, `noise` in grey
    values; `light`: factor of all grey values.
    """

    pupil: Circle
    limbus: Circle
    roll: float = 0.0
    upper: float = 0.85
    lower: float = 1.0
    lashes: int = 30
    reflections: int = 2
    blur: float = 0.8
    noise: float = 2.0
    light: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A drawn capture `(280, 320) uint8`, read-only, and how it came about."""

    image: NDArray[np.uint8]
    look: Look

    def __post_init__(self) -> None:
        self.image.setflags(write=False)


def capture(eye: int, number: int) -> Drawn:
    """Capture `number` of drawn eye `eye`; the same every time. Cost: 40 ms."""
    generator = np.random.default_rng([31, eye, number])
    return Drawn(picture(iris_texture(eye), look := usual_look(generator), generator), look)


def iris_texture(eye: int) -> _Floats:
    """`(96, 1024)`: the iris from pupil to limbus by angle, about -1 to 1, the same for the same `eye`."""
    generator = np.random.default_rng([17, eye])
    fibres = _noise(generator, 14, 3) + 0.8 * _noise(generator, 9, 7) + 0.6 * _noise(generator, 6, 16)
    crypts = np.minimum(_noise(generator, 5, 12) + 1.2, 0) * 1.5
    at = 0.35 + 0.06 * _noise(generator, 40, 25)[0]
    row = np.linspace(0, 1, _ROWS)[:, None]
    collarette = 0.9 * np.exp(-0.5 * ((row - at) / 0.04) ** 2)
    texture = fibres + crypts + collarette
    return np.asarray(texture / (2.5 * texture.std()))


def _noise(generator: np.random.Generator, down: float, across: float) -> _Floats:
    """Noise of deviation 1, smooth over `down` rows and `across` columns, closed around the pupil."""
    wide = np.tile(generator.normal(size=(_ROWS, _COLUMNS)), (1, 3))
    smooth = cv2.GaussianBlur(wide, (0, 0), sigmaX=across, sigmaY=down)[:, _COLUMNS : 2 * _COLUMNS]
    return np.asarray(smooth / smooth.std(), np.float64)


def usual_look(generator: np.random.Generator) -> Look:
    """A capture as a good station makes them, none like another."""
    radius = generator.uniform(96, 108)
    x, y = WIDTH / 2 + generator.uniform(-15, 15), HEIGHT / 2 + generator.uniform(-10, 15)
    pupil = Circle(
        x + generator.uniform(-3, 3), y + generator.uniform(-3, 3), radius * generator.uniform(0.33, 0.47)
    )
    return Look(
        pupil=pupil,
        limbus=Circle(x, y, radius),
        roll=generator.uniform(-0.1, 0.1),
        upper=generator.uniform(0.65, 0.95),
        lower=generator.uniform(0.85, 1.1),
        lashes=int(generator.integers(15, 45)),
        reflections=int(generator.integers(1, 4)),
        blur=generator.uniform(0.6, 1.1),
        noise=generator.uniform(1, 3),
        light=generator.uniform(0.85, 1.1),
    )


def picture(texture: _Floats, look: Look, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one capture of an iris, `(280, 320) uint8`."""
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))
    pupil, limbus = look.pupil, look.limbus
    # 1. Sclera, a little darker to the corners; iris; pupil.
    image = 205 - 25 * np.abs(x - limbus.x) / WIDTH
    from_limbus = np.hypot(x - limbus.x, y - limbus.y) - limbus.radius
    image = _laid_over(image, _iris(texture, look, x, y), from_limbus, 0.6)
    image = _laid_over(image, 28.0, np.hypot(x - pupil.x, y - pupil.y) - pupil.radius, 1.5)
    # 2. Lids, with a rim; lashes hang from the upper.
    across = (x - limbus.x) / limbus.radius
    upper = limbus.y - limbus.radius * (look.upper - 0.3 * across**2)
    lower = limbus.y + limbus.radius * (look.lower - 0.25 * across**2)
    rough = cv2.GaussianBlur(generator.normal(size=x.shape), (0, 0), 2)
    skin = np.asarray(rough * 12 + 215, np.float64)
    image = _laid_over(image, skin, y - upper, 1.2)
    image = _laid_over(image, skin, lower - y, 1.2)
    image = _with_lashes(image, look, generator)
    # 3. Reflections of the lamps, in the pupil.
    for _ in range(look.reflections):
        angle, place = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.6) * pupil.radius
        spot = np.hypot(x - pupil.x - place * np.cos(angle), y - pupil.y - place * np.sin(angle))
        image = _laid_over(image, 250.0, spot - generator.uniform(2, 5), 1.5)
    # 4. The camera.
    image = cv2.GaussianBlur(image * look.light, (0, 0), look.blur) + generator.normal(0, look.noise, x.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _iris(texture: _Floats, look: Look, x: _Floats, y: _Floats) -> _Floats:
    """Grey values of the iris, stretched between pupil and limbus along rays from the pupil."""
    pupil, limbus = look.pupil, look.limbus
    angle, distance = np.arctan2(y - pupil.y, x - pupil.x), np.hypot(x - pupil.x, y - pupil.y)
    dx, dy = pupil.x - limbus.x, pupil.y - limbus.y
    along = dx * np.cos(angle) + dy * np.sin(angle)
    reach = np.sqrt(along**2 + limbus.radius**2 - dx**2 - dy**2) - along
    row = np.clip((distance - pupil.radius) / (reach - pupil.radius), 0, 1) * (_ROWS - 1)
    column = ((angle - look.roll) % (2 * np.pi)) * (_COLUMNS / (2 * np.pi))
    closed = np.concatenate([texture, texture[:, :2]], axis=1).astype(np.float32)
    drawn = cv2.remap(closed, column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(118 + 42 * drawn, np.float64)


def _laid_over(image: _Floats, grey: _Floats | float, distance: _Floats, steep: float) -> _Floats:
    """`grey` where `distance` in pixels is below zero, with an edge as steep as said."""
    share = 1 / (1 + np.exp(np.clip(steep * distance, -50, 50)))
    return np.asarray(image * (1 - share) + share * grey)


def _with_lashes(image: _Floats, look: Look, generator: np.random.Generator) -> _Floats:
    """Bent dark lines from the upper lid downwards."""
    limbus, drawn = look.limbus, image.astype(np.float32)
    for _ in range(look.lashes):
        at = generator.uniform(-1.2, 1.2)
        x = limbus.x + limbus.radius * at
        y = limbus.y - limbus.radius * (look.upper - 0.3 * at**2)
        length, lean = limbus.radius * generator.uniform(0.1, 0.35), at * 0.8 + generator.normal(0, 0.25)
        t = np.linspace(0, 1, 8)
        line = np.column_stack([x + lean * length * t**2, y - 3 + length * t])
        grey = float(generator.uniform(35, 70))
        cv2.polylines(drawn, [np.rint(line * 8).astype(np.int32)], False, grey, 1, cv2.LINE_AA, 3)
    return drawn.astype(np.float64)


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write the images, `<eye>_<capture>.png`.")],
    eyes: Annotated[int, typer.Option(min=1, help="How many eyes.")] = 4,
    captures: Annotated[int, typer.Option(min=1, help="How many captures of each.")] = 2,
) -> None:
    """Write drawn eyes."""
    folder.mkdir(parents=True, exist_ok=True)
    for eye in range(eyes):
        for number in range(captures):
            encoded = cv2.imencode(".png", capture(eye, number).image)[1]
            (folder / f"{eye:03}_{number}.png").write_bytes(encoded.tobytes())


if __name__ == "__main__":
    typer.run(main)
