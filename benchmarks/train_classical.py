"""Fit the small network that judges candidates of minutiae (`capture/fingerprint/classical.npz`).

    python -m benchmarks.train_classical --cache FOLDER
    python -m benchmarks.train_classical --cache FOLDER --hold-out fvc2002_db3_b --model held.npz

Teacher: the LEADER network on the development prints (REKAM_DATA). A candidate near one of its minutiae is as
genuine as LEADER's score of it, any other is false. Prints are seen as they are and degraded: blurred, dry,
wet, faded, darker or lighter, noisy; what LEADER found in the undamaged print stays the truth. Each candidate
is also seen mirrored. With `--hold-out` a set is left out of the fit, and how well it is judged is printed.
"""

import os
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from benchmarks.accuracy import SETS
from benchmarks.provenance import ROOT
from capture.decode import decode_image
from capture.fingerprint import classical
from capture.fingerprint.extract import to_500_ppi
from capture.fingerprint.foreground import foreground, has_light_ridges
from capture.fingerprint.leader import Leader
from capture.fingerprint.ridge_waves import ridge_waves

_TEACHER_SCORE = 0.15  # LEADER's faintest minutiae that make a candidate more than false
_NEAR = 10.0
_TURNED = np.pi / 5
# Of the set that is larger than the others together, every second print is enough.
_EVERY = {"crossmatch": 2}
_FOLDERS = {name: ppi for group in SETS.values() for name, ppi in group.items()}


class Judge(nn.Module):
    """The network as it is fitted; `classical.judgement` runs it without PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 12, 5, stride=2)
        self.second = nn.Conv2d(12, 24, 3, stride=2)
        self.hidden = nn.Linear(24 * 16 + 2, 48)
        self.last = nn.Linear(48, 5)

    def forward(self, patches: torch.Tensor, measures: torch.Tensor) -> torch.Tensor:
        """Log odds of genuine and of ending, moves and turn, as `classical.judgement`."""
        planes = F.relu(self.second(F.relu(self.first(patches))))
        result: torch.Tensor = self.last(F.relu(self.hidden(torch.cat([planes.flatten(1), measures], dim=1))))
        return result


def main(
    cache: Annotated[Path, typer.Option(help="Folder that keeps LEADER's minutiae and the candidates.")],
    hold_out: Annotated[str | None, typer.Option(help="Set to leave out and to report on.")] = None,
    model: Annotated[Path, typer.Option(help="File to write.")] = ROOT
    / "capture"
    / "fingerprint"
    / "classical.npz",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    degraded: Annotated[int, typer.Option(min=0, help="Degraded versions of each print.")] = 2,
    seed: int = 1,
) -> None:
    """Fit on the development prints and write the network's weights."""
    torch.set_num_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    fitted = [_examples(name, cache, degraded, seed) for name in _FOLDERS if name != hold_out]
    judge = _fitted([np.concatenate(column) for column in zip(*fitted, strict=True)], epochs, seed)
    weights = {
        f"{layer}_{part}": tensor.detach().numpy()
        for layer, module in judge.named_children()
        for part, tensor in module.named_parameters()
    }
    np.savez(model, allow_pickle=False, **weights)
    if hold_out is not None:
        _report(judge, _examples(hold_out, cache, degraded, seed))


def _examples(name: str, cache: Path, degraded: int, seed: int) -> list[NDArray[np.float32]]:
    """Patches, measures and truths of a set's candidates, kept in `cache`; the undamaged prints' first."""
    kept = cache / f"{name}-{degraded}-{seed}.npz"
    if not kept.exists():
        folder = Path(os.environ.get("REKAM_DATA", ROOT.parent / "shared" / "data")) / "fingerprint" / name
        rng = np.random.default_rng([seed, *name.encode()])
        plain: list[list[NDArray[np.float32]]] = []
        damaged: list[list[NDArray[np.float32]]] = []
        for path in sorted(folder.glob("*.png"))[:: _EVERY.get(name, 1)]:
            image = to_500_ppi(decode_image(path.read_bytes(), ppi=_FOLDERS[name])).image
            mask = foreground(image)
            if has_light_ridges(image, mask):
                image = 255 - image
            minutiae = _teacher(image, mask, cache / f"{name}-{path.stem}.npy")
            plain.append(_seen(image, mask, minutiae))
            damaged += [_seen(degraded_print(image, rng), mask, minutiae) for _ in range(degraded)]
        columns = [np.concatenate(column) for column in zip(*plain, *damaged, strict=True)]
        undamaged = np.zeros(len(columns[0]), dtype=np.float32)
        undamaged[: sum(len(one[0]) for one in plain)] = 1
        np.savez(kept, *columns, undamaged)
    with np.load(kept) as stored:
        return [stored[key] for key in stored.files]


def _teacher(image: NDArray[np.uint8], mask: NDArray[np.bool_], kept: Path) -> NDArray[np.float32]:
    """LEADER's minutiae `(m, 5)`: x, y, direction, probability of an ending, score."""
    if not kept.exists():
        found = Leader()(image, mask)
        y, x = np.nonzero(found.score >= _TEACHER_SCORE)
        place = np.column_stack([x, y]).astype(np.float32)
        rest = np.column_stack([found.direction[y, x], found.ending[y, x], found.score[y, x]])
        np.save(kept, np.column_stack([place, rest]))
    minutiae: NDArray[np.float32] = np.load(kept)
    return minutiae


def _seen(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], minutiae: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Patches (half precision), measures, and truths `(k, 6)` of the candidates.

    Truths: score, ending, place along and to the left (pixels), turn (radians), whether there is a minutia.
    """
    found = classical.candidates(ridge_waves(image, mask))
    truth = np.zeros((len(found.place), 6), dtype=np.float32)
    for i, j in matched(found.place, minutiae):
        c, s = np.cos(found.place[i, 2]), np.sin(found.place[i, 2])
        dx, dy = minutiae[j, :2] - found.place[i, :2]
        turn = (minutiae[j, 2] - found.place[i, 2] + np.pi) % (2 * np.pi) - np.pi
        truth[i] = (minutiae[j, 4], minutiae[j, 3] >= 0.5, dx * c - dy * s, -dx * s - dy * c, turn, 1)
    return [found.patches.astype(np.float16), found.measures, truth]


def matched(place: NDArray[np.float32], minutiae: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs of a place and a minutia near and turned alike, nearest first, each used once."""
    away = np.hypot(*(place[:, None, :2] - minutiae[None, :, :2]).transpose(2, 0, 1)) / _NEAR
    turned = np.abs((place[:, None, 2] - minutiae[None, :, 2] + np.pi) % (2 * np.pi) - np.pi) / _TURNED
    cost = np.where((away < 1) & (turned < 1), away + turned, np.inf)
    pairs = []
    while cost.size and np.isfinite(cost.min()):
        i, j = np.unravel_index(int(cost.argmin()), cost.shape)
        pairs.append((int(i), int(j)))
        cost[i], cost[:, j] = np.inf, np.inf
    return pairs


def degraded_print(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The print as a worse touch or sensor might show it."""
    grey: NDArray[np.floating] = image.astype(np.float32)
    if rng.random() < 0.5:
        grey = _blurred(grey, rng.uniform(0.5, 1.6))
    kind = rng.choice(["dry", "wet", "thin", "faded", "exposure", "noise only"])
    if kind == "dry":
        gaps = _spots(grey.shape, rng.uniform(1.0, 2.5), rng) * rng.uniform(0.2, 0.6)
        grey = grey + (255 - grey) * np.clip(gaps, 0, 1)
    elif kind in ("wet", "thin"):
        change = cv2.erode if kind == "wet" else cv2.dilate
        grey = np.asarray(change(grey, np.ones((2, 2), np.uint8)), dtype=np.float32)
    elif kind == "faded":
        spots = _spots(grey.shape, rng.uniform(6.0, 25.0), rng)
        grey = 128 + (grey - 128) * (0.25 + 0.75 / (1 + np.exp(-2 * spots))) + 20 * spots
    elif kind == "exposure":
        grey = 255 * (grey / 255) ** rng.uniform(0.5, 2.0)
    grey = grey + rng.standard_normal(grey.shape) * rng.uniform(2.0, 25.0)
    return np.clip(grey, 0, 255).astype(np.uint8)


def _blurred(field: NDArray[np.floating], size: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), size), dtype=np.float32)


def _spots(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of deviation 1."""
    noise = _blurred(rng.standard_normal(shape).astype(np.float32), size)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _fitted(columns: list[NDArray[np.float32]], epochs: int, seed: int) -> Judge:
    torch.manual_seed(seed)
    patches, measures, truth = (torch.from_numpy(column) for column in columns[:3])
    judge = Judge()
    batch = 256
    steps = len(patches) // batch
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps * epochs)
    for epoch in range(epochs):
        order = torch.randperm(len(patches))
        losses = 0.0
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            # Other gains, and half of them mirrored about the direction.
            seen = patches[chosen].float() * torch.exp(0.15 * torch.randn(batch, 2, 1, 1))
            wanted = truth[chosen].clone()
            mirrored = torch.rand(batch) < 0.5
            seen[mirrored] = seen[mirrored].flip(3)
            wanted[mirrored, 3:5] *= -1
            loss = _loss(judge(seen, measures[chosen]), wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses += loss.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {losses / steps:.4f}", flush=True)
    return judge


def _loss(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of being genuine; and, where there is a minutia, of its type, place and direction."""
    real = wanted[:, 5]
    genuine = F.binary_cross_entropy_with_logits(said[:, 0], wanted[:, 0])
    kind = F.binary_cross_entropy_with_logits(said[:, 1], wanted[:, 1], reduction="none")
    place = F.smooth_l1_loss(said[:, 2:4], wanted[:, 2:4] / 3, reduction="none").sum(dim=1)
    turn = F.smooth_l1_loss(said[:, 4], wanted[:, 4] * 5, reduction="none")
    return genuine + ((0.3 * kind + 0.1 * place + 0.1 * turn) * real).sum() / (real.sum() + 1)


def _report(judge: Judge, columns: list[NDArray[np.float32]]) -> None:
    """How well the undamaged prints of a set that was left out are judged."""
    undamaged = columns[3] > 0
    patches, measures, truth = (column[undamaged] for column in columns[:3])
    with torch.no_grad():
        said = judge(torch.from_numpy(patches).float(), torch.from_numpy(measures)).numpy()
    genuine = truth[:, 0] >= 0.44
    order = np.argsort(said[:, 0], kind="stable")
    ranks = np.flatnonzero(genuine[order]) + 1.0
    area = (ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / (len(ranks) * (~genuine).sum())
    real = truth[:, 5] > 0
    kinds = ((said[:, 1] > 0) == truth[:, 1])[real]
    print(
        f"held out: area under the ROC {area:.4f}; type right {kinds.mean():.3f}; "
        f"distance {np.hypot(*truth[real, 2:4].T).mean():.2f} -> "
        f"{np.hypot(*(truth[real, 2:4] - 3 * said[real, 2:4]).T).mean():.2f} px; turn "
        f"{np.abs(truth[real, 4]).mean():.3f} -> {np.abs(truth[real, 4] - said[real, 4] / 5).mean():.3f} rad"
    )


if __name__ == "__main__":
    typer.run(main)
