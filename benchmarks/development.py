"""The real prints that everything is developed on, as templates."""

from pathlib import Path

from rich.progress import track

from benchmarks.accuracy import SETS
from capture.fingerprint.template import FingerprintTemplate
from rekam.offline.prints import extract, print_sets


def development_templates(data: Path, cache: Path | None) -> dict[str, dict[str, FingerprintTemplate]]:
    """Templates of the development sets, by set and `<finger>_<impression>`; failures are left out."""
    sets = {name: ppi for group in SETS.values() for name, ppi in group.items()}
    found: dict[str, dict[str, FingerprintTemplate]] = {}
    for prints in print_sets([data / "fingerprint" / name for name in sets], list(sets.values())):
        for one in track(prints.impressions, f"reading {prints.name}"):
            made = extract(one.path, prints.ppi, cache).template
            if made is not None:
                found.setdefault(prints.name, {})[one.stem] = FingerprintTemplate.from_bytes(made)
    return found
