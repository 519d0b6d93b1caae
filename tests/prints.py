"""Templates made from templates, for tests."""

from dataclasses import replace

from capture.fingerprint.template import FingerprintTemplate
from capture.sample import FingerPosition


def at(template: FingerprintTemplate, position: FingerPosition) -> FingerprintTemplate:
    """The same print declared as another finger."""
    return replace(template, position=position)


def cut(template: FingerprintTemplate, minutiae: int) -> FingerprintTemplate:
    """Only the most reliable minutiae."""
    columns = ("x", "y", "direction", "ending", "reliability")
    return replace(template, **{name: getattr(template, name)[:minutiae] for name in columns})
