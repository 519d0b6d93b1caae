"""Templates made from templates, for tests."""

from dataclasses import replace

from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition
from matching.fingerprint.code import finger_detail


def at(template: FingerprintTemplate, position: FingerPosition) -> FingerprintTemplate:
    """The same print declared as another finger."""
    return replace(template, position=position)


def cut(template: FingerprintTemplate, minutiae: int) -> FingerprintTemplate:
    """Only the most reliable minutiae."""
    columns = ("x", "y", "direction", "ending", "reliability")
    return replace(template, **{name: getattr(template, name)[:minutiae] for name in columns})


def thin(template: FingerprintTemplate) -> FingerprintTemplate:
    """As many of its minutiae as leave it fewer than twelve reliable ones."""
    cuts = (cut(template, n) for n in range(len(template), 0, -1))
    return next(c for c in cuts if finger_detail(c) < 12)
