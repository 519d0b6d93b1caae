"""The Milvus gallery beside the embedded one: whom it finds, what a search takes, what consistency costs.

    python -m benchmarks.milvus [--people 2000] [--probes 100]

The same synthetic people in both, ten fingers, two eyes and a face each; probes are other captures of some of
them, by what they show. `lost`: mates that the embedded gallery puts first and the Milvus gallery does not.
Seconds are wall-clock, of one search at a time; processor time is this process's alone. The server shares its
cores, and has the time tick it is shipped with.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks import synthetic_face_vectors, synthetic_iris_codes
from benchmarks.milvus_server import MilvusServer
from benchmarks.population import TEN_FINGERS, impression, person
from benchmarks.provenance import ROOT, provenance
from matching.encounter import EncounterForm, encounter_form
from matching.gallery import Gallery
from matching.milvus_gallery import PARAMS, MilvusGallery

RESULT = ROOT / "benchmarks" / "results" / "milvus.json"
SEED = 2026
PARTS: dict[str, Callable[[EncounterForm], EncounterForm]] = {
    "everything": lambda form: form,
    "ten fingers": lambda form: EncounterForm(form.fingers),
    "two fingers": lambda form: EncounterForm(form.fingers[1:3]),
    "one finger": lambda form: EncounterForm(form.fingers[1:2]),
    "two eyes": lambda form: EncounterForm((), form.irises),
    "face": lambda form: EncounterForm((), (), form.face),
}


def shown(index: int, capture: int) -> EncounterForm:
    """Person `index` at one capture; 0 is the enrolment."""
    prints = person(index, SEED, TEN_FINGERS)
    if capture:
        rng = np.random.default_rng((SEED, index, capture))
        prints = tuple(impression(template, rng) for template in prints)
    eyes = synthetic_iris_codes.capture(synthetic_iris_codes.eyes(index, SEED), capture)
    return encounter_form(prints, eyes, synthetic_face_vectors.capture(index, SEED, capture))


def searched(
    gallery: Gallery | MilvusGallery, probes: Sequence[tuple[int, EncounterForm]]
) -> tuple[set[int], dict[str, float]]:
    """People whom the gallery puts first for their own probe, and what a search took."""
    first: set[int] = set()
    seconds, processor = [], []
    for key, probe in probes:
        began, began_here = time.perf_counter(), time.process_time()
        best = gallery.search(probe)[0]
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - began_here)
        if best.key == key:
            first.add(key)
    return first, {
        "seconds_median": round(float(np.median(seconds)), 4),
        "seconds_p95": round(float(np.quantile(seconds, 0.95)), 4),
        "processor_seconds_median": round(float(np.median(processor)), 4),
    }


def measure(people: int, probes: int, folder: Path) -> dict[str, object]:
    """Everything, as JSON values."""
    kept: dict[int, EncounterForm] = {}
    embedded = Gallery()
    with MilvusServer(folder, **{"proxy.timeTickInterval": "200"}) as server:
        gallery = MilvusGallery(server.uri, kept.get, prefix="measured")
        for key in track(range(people), "enrolment"):
            kept[key] = shown(key, 0)
            embedded.add(key, key, kept[key])
        began = time.perf_counter()
        for key, form in kept.items():
            gallery.add(key, key, form)
        gallery.flush()
        written = time.perf_counter() - began
        asked = [(key, shown(key, 1)) for key in range(0, people, max(people // probes, 1))][:probes]
        time.sleep(PARAMS.seen_after)
        by_part: dict[str, object] = {}
        for name, part in PARTS.items():
            of = [(key, part(form)) for key, form in asked]
            own, took_embedded = searched(embedded, of)
            found, took = searched(gallery, of)
            by_part[name] = {
                "probes": len(of),
                "first_embedded": len(own),
                "lost": len(own - found),
                "embedded": took_embedded,
                "milvus": took,
            }
        # What it costs that a search meets what was written just before: one write, one search, by turns.
        consistency: dict[str, object] = {}
        strong = MilvusGallery(server.uri, kept.get, prefix="measured", strong=True)
        for name, one in (("kept back here", gallery), ("strong", strong)):
            seconds = []
            for turn in range(20):
                new = people + turn
                kept[new] = kept[turn]
                one.add(new, new, kept[turn])
                one.flush()
                began = time.perf_counter()
                if new not in [match.key for match in one.search(EncounterForm(kept[turn].fingers))]:
                    raise SystemExit(f"{name}: a search did not meet what was added before it")
                seconds.append(time.perf_counter() - began)
                one.remove(new)
                one.flush()
            consistency[name] = {"seconds_median": round(float(np.median(seconds)), 4)}
        strong.close()
        result: dict[str, object] = {
            "people": people,
            "encounters_written_a_second": round(people / written),
            "server_resident_mib": server.resident_bytes >> 20,
            "bytes": {modality.value: size for modality, size in gallery.sizes().searched.items()},
            "searches": by_part,
            "search_after_a_write": consistency,
        }
        gallery.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = f"python -m benchmarks.milvus --people {args.people} --probes {args.probes}"
        measured = {"command": command, **measure(args.people, args.probes, Path(folder))}
    args.result.write_text(json.dumps(measured | {"provenance": provenance()}, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
