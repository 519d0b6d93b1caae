"""Fit `matching/fingerprint/descriptors.npz` on the real prints of the development sets.

    python -m benchmarks.train_descriptors --cache DIR [--leave-out crossmatch]

Cylinders of one minutia in two impressions of a finger give the scatter within a class, all cylinders the
total scatter; the discriminant projection, the coarse centroids and the codebooks follow from them. With
`--leave-out`, nothing is written: the share of mates found in the set left out is printed instead.
"""

import argparse
import os
from hashlib import sha256
from itertools import combinations, pairwise
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT
from capture.fingerprint.template import Extractor, FingerprintTemplate
from matching.fingerprint.comparison import compare
from matching.fingerprint.cylinders import Cylinders, cylinders
from matching.fingerprint.descriptors import (
    DESCRIPTORS_VERSION,
    SIZE,
    DescriptorModel,
    descriptors,
    raw_descriptors,
)
from rekam.offline.prints import extract, print_sets

OUTPUT = ROOT / "matching" / "fingerprint" / "descriptors.npz"
LISTS = 1024
PARTS = 32
SHRINKAGE = 0.1  # of the scatter within classes, towards a multiple of the identity
SEED = 2010

Print = tuple[FingerprintTemplate, Cylinders]


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


def load_prints(data: Path, cache: Path | None) -> dict[tuple[str, str], list[Print]]:
    """Impressions of each finger, by set and finger."""
    prints: dict[tuple[str, str], list[Print]] = {}
    for name, templates in development_templates(data, cache).items():
        for stem, template in templates.items():
            prints.setdefault((name, stem.split("_")[0]), []).append((template, cylinders(template)))
    return prints


def mates(a: Cylinders, b: Cylinders) -> NDArray[np.int64]:
    """`(k, 2)`: cylinders of the same minutia in two impressions of one finger; none if they do not fit."""
    nothing = np.zeros((0, 2), dtype=np.int64)
    anchors = compare(a, b).pairs
    if len(anchors) < 4:
        return nothing
    # 1. the rigid motion that carries the reliable pairs onto each other (Kabsch), y down
    p = np.column_stack([a.x, a.y]).astype(np.float64)
    q = np.column_stack([b.x, b.y]).astype(np.float64)
    i, j = anchors[:, 0], anchors[:, 1]
    u, _, v = np.linalg.svd((p[i] - p[i].mean(0)).T @ (q[j] - q[j].mean(0)))
    turn = u @ np.diag([1, np.sign(np.linalg.det(u @ v))]) @ v
    moved = (p - p[i].mean(0)) @ turn + q[j].mean(0)
    angle = np.arctan2(-turn[0, 1], turn[0, 0])
    # 2. mutually nearest cylinders that agree in place and direction
    away = np.linalg.norm(moved[:, None] - q[None], axis=2)
    twist = np.abs((b.direction[None] - a.direction[:, None] - angle + np.pi) % (2 * np.pi) - np.pi)
    away[(away > 14) | (twist > 0.45)] = np.inf
    nearest = away.argmin(axis=1)
    kept = np.isfinite(away.min(axis=1)) & (away[:, nearest].argmin(axis=0) == np.arange(len(a)))
    if kept.sum() < max(8, 0.35 * min(len(a), len(b))):
        return nothing
    return np.column_stack([np.flatnonzero(kept), nearest[kept]])


def fit(fingers: list[list[Print]]) -> DescriptorModel:
    """Projection, centroids and codebooks from these fingers alone."""
    # 1. scatter of one minutia's cylinders, and of all
    within: list[NDArray[np.float32]] = []
    everything: list[NDArray[np.float32]] = []
    for impressions in track(fingers, "pairing minutiae"):
        raw = [raw_descriptors(template, made) for template, made in impressions]
        everything += raw
        for i, j in combinations(range(len(raw)), 2):
            found = mates(impressions[i][1], impressions[j][1])
            within.append(raw[i][found[:, 0]] - raw[j][found[:, 1]])
    differences = np.concatenate(within).astype(np.float64)
    values = np.concatenate(everything)
    mean = values.mean(axis=0)
    scatter_within = differences.T @ differences / (2 * len(differences))
    scatter_within += SHRINKAGE * np.trace(scatter_within) / len(scatter_within) * np.eye(len(scatter_within))
    # 2. whiten the one, then keep the directions in which the other is largest
    power, axes = np.linalg.eigh(scatter_within)
    whitening = axes / np.sqrt(power)
    _, directions = np.linalg.eigh(whitening.T @ np.cov(values.T.astype(np.float64)) @ whitening)
    projection = (whitening @ directions[:, ::-1][:, :SIZE]).astype(np.float32)
    # 3. centroids and codebooks, of the descriptors themselves: residuals cost more at search than they bring
    projected = (values - mean) @ projection
    projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-9)
    clusters = faiss.Kmeans(
        SIZE,
        LISTS,
        niter=25,
        seed=SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=1000,
    )
    clusters.train(projected)
    centroids = np.asarray(clusters.centroids, dtype=np.float32)
    quantiser = faiss.ProductQuantizer(SIZE, PARTS, 4)
    quantiser.train(projected)
    codebooks = faiss.vector_to_array(quantiser.centroids).reshape(PARTS, 16, SIZE // PARTS)
    digest = sha256(b"".join(array.tobytes() for array in (mean, projection, centroids, codebooks)))
    print(f"{len(differences)} pairs of cylinders, {len(values)} cylinders")
    return DescriptorModel(mean, projection, centroids, codebooks, digest.hexdigest()[:16])


def mates_found(model: DescriptorModel, fingers: list[list[Print]]) -> list[float]:
    """Share of mated cylinders nearer than all but 1e-3, 1e-4 and 1e-5 of the cylinders of other fingers."""
    described = [[descriptors(t, c, model) for t, c in impressions] for impressions in fingers]
    genuine = np.concatenate(
        [
            np.linalg.norm(a[found[:, 0]] - b[found[:, 1]], axis=1)
            for impressions, vectors in zip(fingers, described, strict=True)
            for ((_, p), a), ((_, q), b) in combinations(zip(impressions, vectors, strict=True), 2)
            for found in (mates(p, q),)
        ]
    )
    impostor = np.concatenate(
        [
            np.sqrt(np.maximum(0, 2 - 2 * np.concatenate(a) @ np.concatenate(b)[::7].T)).ravel()
            for a, b in pairwise(described)
        ]
    )
    return [float((genuine < np.quantile(impostor, share)).mean()) for share in (1e-3, 1e-4, 1e-5)]


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the search descriptors")
    parser.add_argument("--cache", type=Path, help="keep templates here, and take them from here")
    parser.add_argument(
        "--leave-out",
        choices=sorted(name for group in SETS.values() for name in group),
        help="test on this set instead of writing",
    )
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    prints = load_prints(data, arguments.cache)
    left_out = arguments.leave_out
    model = fit([impressions for (name, _), impressions in prints.items() if name != left_out])
    if left_out:
        found = mates_found(model, [v for (name, _), v in prints.items() if name == left_out])
        print("mates found at 1e-3, 1e-4, 1e-5:", ", ".join(f"{share:.3f}" for share in found))
        return
    np.savez_compressed(
        OUTPUT,
        version=DESCRIPTORS_VERSION,
        extractor=int(Extractor.LEADER_1),
        mean=model.mean,
        projection=model.projection,
        centroids=model.centroids,
        codebooks=model.codebooks,
        identity=model.identity,
    )
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1024:.0f} KiB, {model.identity}")


if __name__ == "__main__":
    main()
