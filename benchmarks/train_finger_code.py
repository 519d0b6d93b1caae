"""Learn `matching/fingerprint/code.npz` from synthetic prints.

    pip install 'rekam[train]'
    python -m benchmarks.train_finger_code [--steps 400]

1. A small network learns, from impressions of synthetic fingers whose minutiae are known to correspond, to
give a minutia the same vector in each and other minutiae other ones (InfoNCE; A. van den Oord et al.,
"Representation learning with contrastive predictive coding", 2018). 2. The vectors' clusters and the
covariance of the sums by cluster follow from other synthetic fingers; the sums are whitened and turned at
random, and the signs are the bits. 3. The evidence of a distance is fitted to real prints of the development
sets and synthetic ones together; nothing else sees a real print. Two minutes on one core.
"""

import argparse
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from benchmarks.development import development_templates
from benchmarks.identify import damaged
from benchmarks.population import NOISE, PARAMS, SCANNERS, Noise, Params, _impression, impression, person
from benchmarks.provenance import ROOT
from capture.fingerprint.template import MAX_MINUTIAE, FingerprintTemplate
from matching.fingerprint.code import (
    CODE_BITS,
    CODE_VERSION,
    DETAIL_BINS,
    CodeModel,
    detail_bin,
    finger_code,
    finger_detail,
)
from matching.fingerprint.cylinders import PARAMS as CYLINDER_PARAMS
from matching.fingerprint.descriptors import RAW_SIZE, neighbourhoods

OUTPUT = ROOT / "matching" / "fingerprint" / "code.npz"
SEED = 777_012  # of the people taught on; those of the steps after have the seeds that follow
SIZE, HIDDEN, CLUSTERS = 96, 64, 16
SHARPNESS = 8.0  # of the assignment to clusters
VIEWS = 4
SCALE = 500.0  # raw values are kept as bytes
UNLUCKY = 0.5  # share of mates whose print is as useless as a stranger's: the floor of the evidence
MOST = 5.0  # log10: what one finger's code may say at most

Raw = NDArray[np.uint8]


def world(index: int) -> tuple[Params, Noise]:
    """Half of the people on the live scanner, the others on the three small ones in turn."""
    return [(PARAMS, NOISE), *SCANNERS.values()][0 if index % 2 else 1 + index // 2 % 3]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Minutiae of impressions: raw values, and which of its finger's minutiae each is, -1 for none.

    Impression v of finger f is the rows from `start[VIEWS f + v]` up to the next start.
    """

    raw: Raw
    minutia: NDArray[np.int64]
    start: NDArray[np.int64]


def views(people: int, seed: int) -> Views:
    """Draw fingers and take impressions of each, some of them damaged. Cost: 1.4 ms a finger."""
    rng = np.random.default_rng((seed, 7))
    raw: list[Raw] = []
    minutiae: list[NDArray[np.int64]] = []
    for index in track(range(people), "drawing fingers"):
        params, noise = world(index)
        for template in person(index, seed, params=params):
            for view in range(VIEWS):
                made, minutia = traced_impression(template, rng, noise)
                if view >= VIEWS // 2 and rng.random() < 0.6:
                    made, minutia = part(made, minutia, rng)
                used = made[:, 4] >= CYLINDER_PARAMS.min_reliability
                x, y, direction = (made[used, column].astype(np.float32) for column in range(3))
                seen = neighbourhoods(x, y, direction % np.float32(2 * np.pi))
                raw.append(np.minimum(np.rint(seen * SCALE), 255).astype(np.uint8))
                minutiae.append(minutia[used])
    start = np.cumsum([0, *map(len, raw)])
    return Views(np.concatenate(raw), np.concatenate(minutiae), start)


def traced_impression(
    template: FingerprintTemplate, rng: np.random.Generator, noise: Noise
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Another impression as `(n, 5)` columns, and which minutia of the template each is, -1 for new ones."""
    # the column that says ending or not carries the number through; new minutiae say 0 or 1
    number = np.arange(len(template)) + 2.0
    columns = (template.x, template.y, template.direction, number, template.reliability)
    made = _impression(
        rng,
        np.column_stack(columns).astype(np.float64),
        template.width,
        template.height,
        noise.shift,
        noise.turn,
        noise.roll,
        noise.stretch,
        noise.jitter,
        noise.direction,
        noise.severity,
        noise.missed,
        noise.missed_unsure,
        noise.spurious,
        0.0,
    )
    made = made[np.argsort(-made[:, 4], kind="stable")][:MAX_MINUTIAE]
    return made, np.where(made[:, 3] >= 2, made[:, 3] - 2, -1).astype(np.int64)


def part(
    made: NDArray[np.float64], minutia: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A part of a poor print, as `benchmarks.identify.damaged` makes it."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * made[:, 0] + np.sin(angle) * made[:, 1]
    kept = np.flatnonzero((along <= np.quantile(along, 0.6)) & (rng.random(len(along)) > 0.2))
    rows = np.concatenate([kept, rng.integers(0, len(along), len(kept) // 10)])
    real = np.arange(len(rows)) < len(kept)
    poor = made[rows].copy()
    poor[:, :2] = np.rint(poor[:, :2] + rng.normal(0, np.where(real, 2.0, 60.0)[:, None], (len(rows), 2)))
    poor[:, 2] += rng.normal(0, np.where(real, 0.1, 3.0))
    return poor, np.where(real, minutia[rows], -1)


class Network(nn.Module):
    """`(n, 384)` raw values to `(n, 96)`, not yet of unit length: a linear map, and a hidden layer beside."""

    def __init__(self, mean: NDArray[np.float64], projection: NDArray[np.float64]) -> None:
        super().__init__()
        self.linear = nn.Linear(RAW_SIZE, SIZE)
        self.hidden = nn.Linear(RAW_SIZE, HIDDEN)
        self.out = nn.Linear(HIDDEN, SIZE, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        start = torch.tensor(projection, dtype=torch.float32) / 16
        centre = torch.tensor(mean, dtype=torch.float32)
        self.linear.weight.data, self.linear.bias.data = start.T.contiguous(), -centre @ start
        nn.init.normal_(self.hidden.weight, 0, 0.5)
        self.hidden.bias.data = -(self.hidden.weight.data @ centre)
        nn.init.normal_(self.out.weight, 0, 0.01)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Each minutia's vector."""
        vector: torch.Tensor = self.linear(raw) + self.out(torch.relu(self.hidden(raw)))
        return vector


def pairs(taught: Views, fingers: NDArray[np.int64], rng: np.random.Generator) -> tuple[Raw, Raw]:
    """The minutiae that two impressions of each finger share, row by row."""
    first: list[Raw] = []
    again: list[Raw] = []
    for finger in fingers:
        a, b = (VIEWS * finger + view for view in rng.permutation(VIEWS)[:2])
        i, j = (slice(taught.start[v], taught.start[v + 1]) for v in (a, b))
        ours, theirs = taught.minutia[i], taught.minutia[j]
        p, q = np.nonzero((ours[:, None] == theirs[None]) & (ours[:, None] >= 0))
        first.append(taught.raw[i][p])
        again.append(taught.raw[j][q])
    return np.concatenate(first), np.concatenate(again)


def discriminant(taught: Views, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where learning starts: the mean, and the linear discriminant projection of minutiae `(384, 96)`."""
    fingers = (len(taught.start) - 1) // VIEWS
    chosen = rng.permutation(fingers)[:2000]
    a, b = (raw / SCALE for raw in pairs(taught, chosen, rng))
    values = taught.raw[rng.permutation(len(taught.raw))[:80_000]] / SCALE
    within = (a - b).T @ (a - b) / (2 * len(a))
    within += 0.1 * np.trace(within) / RAW_SIZE * np.eye(RAW_SIZE)
    power, axes = np.linalg.eigh(within)
    whitening = axes / np.sqrt(power)
    _, directions = np.linalg.eigh(whitening.T @ np.cov(values.T) @ whitening)
    return values.mean(axis=0), whitening @ directions[:, ::-1][:, :SIZE]


def learn(taught: Views, steps: int, seed: int, fingers_a_step: int = 64, rate: float = 2e-3) -> Network:
    """Teach the network; minutiae of all fingers of a step are each other's negatives. Cost: 0.1 s a step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Network(*discriminant(taught, rng))
    linear = list(network.linear.parameters())
    others = [weights for name, weights in network.named_parameters() if not name.startswith("linear")]
    optimiser = torch.optim.AdamW([{"params": linear}, {"params": others}], lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.3 * rate, rate], steps, pct_start=0.1)
    recent = 0.0
    for step in range(steps):
        chosen = rng.integers(0, (len(taught.start) - 1) // VIEWS, fingers_a_step)
        a, b = (torch.from_numpy(raw).float() / SCALE for raw in pairs(taught, np.unique(chosen), rng))
        with torch.autocast("cpu", torch.bfloat16):
            first, again = network(a).float(), network(b).float()
            likeness = nn.functional.normalize(first) @ nn.functional.normalize(again).T
        logit = likeness.float() * network.log_scale.exp().clamp(max=60)
        truth = torch.arange(len(logit))
        error = nn.functional.cross_entropy(logit, truth) + nn.functional.cross_entropy(logit.T, truth)
        optimiser.zero_grad()
        torch.autograd.backward([error])
        optimiser.step()
        schedule.step()
        recent += float(error.detach()) / 2
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: loss {recent / 100:.3f}", flush=True)
            recent = 0.0
    return network


def rounded(weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """As they come back from the file, which keeps them in half precision."""
    return np.ascontiguousarray(weights.astype(np.float16).astype(np.float32))


def code_model(network: Network, people: int, seed: int, power: float = 0.5) -> CodeModel:
    """Clusters and projection from first impressions of other people; the evidence still says nothing."""
    arrays = {name: weights.detach().numpy() for name, weights in network.state_dict().items()}
    first = rounded(
        np.vstack(
            [
                np.hstack([arrays["linear.weight"].T, arrays["hidden.weight"].T]),
                np.hstack([arrays["linear.bias"], arrays["hidden.bias"]]),
            ]
        )
    )
    second = rounded(arrays["out.weight"].T)
    # 1. the vectors of each finger's minutiae, and their clusters
    vectors: list[NDArray[np.float32]] = []
    for index in track(range(people), "drawing more fingers"):
        for template in person(index, seed, params=world(index)[0]):
            used = template.reliability >= CYLINDER_PARAMS.min_reliability
            seen = neighbourhoods(template.x[used], template.y[used], template.direction[used])
            inner = seen @ first[:-1] + first[-1]
            vectors.append(inner[:, :SIZE] + np.maximum(inner[:, SIZE:], 0) @ second)
    length = [np.linalg.norm(vector, axis=1, keepdims=True) for vector in vectors]
    unit = [vector / np.maximum(size, 1e-9) for vector, size in zip(vectors, length, strict=True)]
    clusters = faiss.Kmeans(SIZE, CLUSTERS, niter=15, seed=seed, spherical=True)
    clusters.train(np.concatenate(unit[:2000]))
    centres = rounded(SHARPNESS * np.asarray(clusters.centroids).T)
    # 2. sums by cluster, whitened, then turned so that every bit says as much as any other
    sums = np.empty((len(unit), CLUSTERS * SIZE))
    for row, (vector, size) in enumerate(zip(unit, length, strict=True)):
        share = np.exp(vector @ centres)
        share *= np.sqrt(size) / share.sum(axis=1, keepdims=True)
        sums[row] = (share.T @ vector).ravel()
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    variance, axes = np.linalg.eigh(np.cov(sums.T))
    kept = axes[:, ::-1][:, :CODE_BITS] / variance[::-1][:CODE_BITS] ** power
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((CODE_BITS, CODE_BITS)))[0]
    projection = kept @ turn
    bits = np.rint(projection * (127 / np.abs(projection).max(axis=0))).astype(np.int8)
    limits = np.median(sums @ bits, axis=0).astype(np.float32)
    digest = sha256(b"".join(array.tobytes() for array in (first, second, centres, bits, limits)))
    nothing = np.zeros((DETAIL_BINS, DETAIL_BINS, CODE_BITS + 1), dtype=np.float32)
    return CodeModel(first, second, centres, bits, limits, nothing, digest.hexdigest()[:16])


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Prints whose distances the evidence is fitted to; `weight` is that of a pair."""

    codes: NDArray[np.uint64]
    detail: NDArray[np.int64]
    finger: NDArray[np.int64]
    weight: float


def sample(prints: list[tuple[int, FingerprintTemplate]], model: CodeModel, weight: float) -> Sample:
    """Code prints, given with the number of their finger."""
    return Sample(
        np.array([finger_code(template, model) for _, template in prints]),
        np.array([detail_bin(finger_detail(template)) for _, template in prints]),
        np.array([finger for finger, _ in prints]),
        weight,
    )


def real_prints(data: Path, cache: Path | None) -> list[tuple[int, FingerprintTemplate]]:
    """Every impression of the development sets, with the number of its finger."""
    named = [
        (f"{name} {stem.split('_')[0]}", template)
        for name, templates in development_templates(data, cache).items()
        for stem, template in templates.items()
    ]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in named))}
    return [(numbers[name], template) for name, template in named]


def synthetic_prints(people: int, seed: int) -> Iterator[tuple[int, FingerprintTemplate]]:
    """Three prints of each finger, one of them damaged."""
    rng = np.random.default_rng(seed)
    for index in range(people):
        for column, template in enumerate(person(index, seed)):
            again, poor = impression(template, rng), damaged(impression(template, rng), rng)
            yield from ((10 * index + column, one) for one in (template, again, poor))


def evidence(samples: list[Sample], words: int) -> NDArray[np.float32]:
    """`(bins, bins, 64 words + 1)`: what a distance in the first words says, log10, not rising with it.

    Mates' distances are smoothed over neighbouring bins of detail and distances; strangers' are taken as
    normal, with the spread that one in a thousand of them needs. Half of the mates are assumed to be as
    far as strangers (`UNLUCKY`), so a bad print costs 0.3 at most.
    """
    bits = 64 * words
    mated = np.zeros((DETAIL_BINS, DETAIL_BINS, bits + 1))
    strange = np.zeros_like(mated)
    for one in samples:
        for row, code in enumerate(one.codes):
            later = slice(row + 1, None)
            away = np.bitwise_count(one.codes[later, :words] ^ code[:words]).sum(axis=1, dtype=np.int64)
            same = one.finger[later] == one.finger[row]
            for table, rows in ((mated, same), (strange, ~same)):
                np.add.at(table[one.detail[row]], (one.detail[later][rows], away[rows]), one.weight)
    index = np.arange(DETAIL_BINS)
    blur = np.exp(-((index[:, None] - index) ** 2) / (2 * 0.6**2))
    mated, strange = (
        np.einsum("ai,bj,ijh->abh", blur, blur, table + table.transpose(1, 0, 2))
        for table in (mated, strange)
    )
    distance = np.arange(bits + 1)
    reach = bits // 50
    kernel = np.exp(-(np.arange(-4 * reach, 4 * reach + 1) ** 2) / (2 * reach**2))
    llr = np.empty_like(mated)
    for a, b in np.ndindex(DETAIL_BINS, DETAIL_BINS):
        near = np.convolve(mated[a, b] / mated[a, b].sum(), kernel / kernel.sum(), "same")
        far = strange[a, b] / strange[a, b].sum()
        mean = float((far * distance).sum())
        below = distance < mean
        spread = math.sqrt(float((far * (distance - mean) ** 2)[below].sum() / far[below].sum()))
        spread = max(spread, (mean - float(np.searchsorted(np.cumsum(far), 1e-3))) / 3.09)
        normal = np.exp(-((distance - mean) ** 2) / (2 * spread**2)) / (spread * math.sqrt(2 * math.pi))
        ratio = near / np.maximum(normal, 1e-12)
        ratio[distance >= mean] = 0
        llr[a, b] = np.minimum(np.log10(UNLUCKY + (1 - UNLUCKY) * ratio), MOST)
    falling: NDArray[np.float64] = np.maximum.accumulate(llr[:, :, ::-1], axis=2)[:, :, ::-1]
    return falling.astype(np.float16).astype(np.float32)


def evidence_samples(data: Path, cache: Path | None, model: CodeModel) -> list[Sample]:
    """Real pairs count four times as much as synthetic ones."""
    synthetic = list(synthetic_prints(60, SEED + 2))
    return [sample(real_prints(data, cache), model, 4.0), sample(synthetic, model, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description="learn the finger codes")
    parser.add_argument(
        "--cache", type=Path, help="keep templates of real prints here, and take them from here"
    )
    parser.add_argument("--people", type=int, default=700, help="synthetic people the network learns from")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    network = learn(views(arguments.people, SEED), arguments.steps, seed=0)
    model = code_model(network, arguments.people, SEED + 1)
    data = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data"))
    fitted = evidence(evidence_samples(data, arguments.cache, model), CODE_BITS // 64)
    model = replace(model, evidence=fitted)
    arrays = {name: getattr(model, name) for name in ("first", "second", "clusters", "evidence")}
    np.savez_compressed(
        arguments.output,
        version=CODE_VERSION,
        bits=model.bits,
        limits=model.limits,
        identity=model.identity,
        **{name: array.astype(np.float16) for name, array in arrays.items()},
    )
    print(f"{arguments.output.name}: {arguments.output.stat().st_size / 1024:.0f} KiB, {model.identity}")


if __name__ == "__main__":
    main()
