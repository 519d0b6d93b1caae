"""Pictures of eyes made worse, as other cameras and worse moments would: what the pipeline must stand.

The publisher of CASIA-V1 painted the pupils over in one grey, so that nothing reflects in them; every kind
here puts back a pupil with noise and reflections first, some of them across its edge. Where the pupil and
limbus lie is taken from the segmentation of the plain picture.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.iris.segmentation import Circle, segmented
from capture.sample import IrisSample

_Floats = NDArray[np.float64]

# What is done, in this order, for each kind.
KINDS = {
    "reflections": (),
    "light": ("light",),
    "half size": ("half",),
    "blur": ("blur",),
    "noise": ("noise",),
    "covered": ("cover",),
    "all at once": ("light", "blur", "scale", "noise"),
}


def spoilt(sample: IrisSample, kind: str, seed: int) -> IrisSample:
    """The sample, made worse as `kind` says; the same for the same `seed`. Cost: 50 ms."""
    generator = np.random.default_rng([seed, list(KINDS).index(kind)])
    eye = segmented(sample.image)
    image = _reflecting(sample.image.astype(np.float64), eye.pupil, generator)
    for step in KINDS[kind]:
        image = _worse(image, step, eye.limbus, generator)
    return replace(sample, image=np.clip(np.rint(image), 0, 255).astype(np.uint8))


def _reflecting(image: _Floats, pupil: Circle, generator: np.random.Generator) -> _Floats:
    """A pupil of its own grey, with one to four reflections, sometimes one more near its edge."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    dark = generator.uniform(5, 60) + generator.normal(0, 2.5, image.shape)
    image = _laid_over(image, dark, np.hypot(x - pupil.x, y - pupil.y) - pupil.radius + 0.5)
    places = [generator.uniform(0, 0.75) for _ in range(generator.integers(1, 5))]
    if generator.random() < 0.4:
        places.append(generator.uniform(0.9, 1.5))
    for place in places:
        angle, size = generator.uniform(0, 2 * np.pi), generator.uniform(0.08, 0.25) * pupil.radius
        dx = x - pupil.x - place * pupil.radius * np.cos(angle)
        dy = y - pupil.y - place * pupil.radius * np.sin(angle)
        longer = generator.uniform(0.7, 1.5)
        image = _laid_over(image, 255.0, np.hypot(dx * longer, dy / longer) - size)
    return image


def _laid_over(image: _Floats, grey: _Floats | float, distance: _Floats) -> _Floats:
    """`grey` where `distance` in pixels is below zero, with a soft edge."""
    share = 1 / (1 + np.exp(np.clip(1.5 * distance, -50, 50)))
    return image * (1 - share) + share * grey


def _worse(image: _Floats, step: str, limbus: Circle, generator: np.random.Generator) -> _Floats:
    height, width = image.shape
    if step == "light":
        curve = 255 * (np.clip(image, 0, 255) / 255) ** generator.uniform(0.6, 1.8)
        slope = np.linspace(-0.5, 0.5, width) * generator.uniform(-40, 40)
        return np.asarray(curve * generator.uniform(0.6, 1.2) + generator.uniform(-15, 15) + slope)
    if step == "blur":
        return cv2.GaussianBlur(image, (0, 0), generator.uniform(0.5, 2.2)).astype(np.float64)
    if step == "noise":
        return image + generator.normal(0, generator.uniform(1, 7), image.shape)
    if step == "cover":
        # Skin comes down over the upper part, at most to half way between the iris's top and its middle.
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        lid = limbus.y - limbus.radius * generator.uniform(0.5, 0.9)
        arc = lid + 0.25 * (x - limbus.x) ** 2 / limbus.radius
        return _laid_over(image, generator.uniform(170, 215) + generator.normal(0, 3, image.shape), y - arc)
    factor = 0.52 if step == "half" else generator.uniform(0.5, 1.6)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=how).astype(np.float64)
