"""Train the fast extractor's network: LEADER teaches it on synthetic fingers, made hard to read.

    pip install 'rekam[train]'
    python -m benchmarks.train_fast_extractor teach FOLDER --fingers 336
    python -m benchmarks.train_fast_extractor train FOLDER

`teach` draws fingers and asks LEADER for their minutiae, 1.5 CPU s each; `train` learns from squares of them
(`benchmarks.training_squares`), 0.25 CPU s a step, and writes `capture/fingerprint/fast.onnx`. Both go on
where they were when started again. No real print is used.
"""

import copy
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.training_squares import SIDE, Finger, Noise, encode, square, taught
from capture.fingerprint import fast
from capture.fingerprint.leader import Leader

Kept = nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler

app = typer.Typer(add_completion=False, no_args_is_help=True)


class Residual(nn.Module):
    """A 3 x 3 convolution, dilated, added to its input."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.inner = _convolution(channels, channels, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(n, channels, h, w)` to the same shape."""
        y: torch.Tensor = x + self.inner(x)
        return y


class Network(nn.Module):
    """`(n, 1, h, w)` normalised grey levels to `(n, 6, h / 4, w / 4)` cells; h and w multiples of 8."""

    def __init__(self, thin: int = 16, middle: int = 32, wide: int = 64, last: int = 48) -> None:
        super().__init__()
        self.stem = _convolution(1, thin, size=5, stride=2)
        self.quarter = nn.Sequential(_convolution(thin, middle, stride=2), Residual(middle), Residual(middle))
        self.eighth = nn.Sequential(
            _convolution(middle, wide, stride=2),
            *(Residual(wide, dilation) for dilation in (1, 2, 4, 1, 2, 4, 1)),
        )
        self.up = nn.Conv2d(wide, middle, 1)
        self.merge = nn.Sequential(_convolution(middle, last), Residual(last))
        self.head = nn.Conv2d(last, fast.CHANNELS, 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias[:1], -4.0)  # minutiae are rare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every cell's six numbers, as `fast.CHANNELS` lists them."""
        fine = self.quarter(self.stem(x))
        context = nn.functional.interpolate(self.up(self.eighth(fine)), scale_factor=2.0, mode="nearest")
        cells: torch.Tensor = self.head(self.merge(fine + context))
        return cells


def _convolution(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, dilation * (size // 2), dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def loss(cells: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    """Focal loss of the minutiae (Zhou, Wang, Kraehenbuehl, "Objects as points", 2019), error of the rest."""
    logit, truth = cells[:, 0], target[:, 0]
    p = torch.sigmoid(logit)
    hit, miss = nn.functional.logsigmoid(logit), nn.functional.logsigmoid(-logit)
    peak = (truth >= 1).float()
    focal = peak * (1 - p) ** 2 * hit + sure * (1 - peak) * (1 - truth) ** 4 * p**2 * miss
    count = peak.sum().clamp(min=1)
    heavy = weight.sum().clamp(min=1)
    offset = (
        nn.functional.smooth_l1_loss(cells[:, 1:3], target[:, 1:3], beta=0.2, reduction="none").sum(1)
        * weight
    ).sum()
    facing = ((cells[:, 3:5] - target[:, 3:5]).square().sum(1) * weight).sum()
    ending = nn.functional.binary_cross_entropy_with_logits(cells[:, 5], target[:, 5], reduction="none")
    return -focal.sum() / count + (offset + facing + 0.2 * (ending * weight).sum()) / heavy


def batch(fingers: list[Finger], noise: Noise, seed: int, step: int, size: int) -> list[torch.Tensor]:
    """The squares of one step: images, targets, weights, sure cells."""
    rng = np.random.default_rng([seed, 6, step])
    rows: list[tuple[NDArray[np.float32], ...]] = []
    for _ in range(size):
        image, minutiae, sure = square(fingers[rng.integers(len(fingers))], noise, rng)
        target, weight = encode(minutiae)
        known = sure[fast.STRIDE // 2 :: fast.STRIDE, fast.STRIDE // 2 :: fast.STRIDE].astype(np.float32)
        rows.append((fast.normalised(image)[None], target, weight, known))
    return [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]


@app.command()
def teach(
    folder: Annotated[Path, typer.Argument(help="Where the fingers are kept.")],
    fingers: Annotated[int, typer.Option(min=1, help="How many.")] = 336,
) -> None:
    """Grow fingers and let LEADER mark their minutiae."""
    folder.mkdir(parents=True, exist_ok=True)
    leader = Leader()
    for seed in range(fingers):
        taught(seed, leader, folder)
        if seed % 50 == 49:
            print(f"{seed + 1} fingers", flush=True)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="The folder that `teach` filled.")],
    out: Annotated[Path, typer.Option(help="The network.")] = fast.WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="Batches.")] = 8_500,
    size: Annotated[int, typer.Option(min=1, help="Squares in a batch.")] = 8,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Of the squares and the first weights.")] = 0,
) -> None:
    """Train the network on them, and write it as ONNX."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(seed)
    leader, noise = Leader(), Noise(seed)
    fingers = [taught(int(path.stem), leader, folder) for path in sorted(folder.glob("*.npz"))]
    network = Network()
    for weights in network.parameters():
        if weights.ndim == 4:
            weights.data = weights.data.to(memory_format=torch.channels_last)
    mean = AveragedModel(network, multi_avg_fn=_mean_of_late_steps, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, steps, pct_start=0.05, final_div_factor=100
    )
    parts: dict[str, Kept] = {"network": network, "mean": mean, "optimiser": optimiser, "schedule": schedule}
    checkpoint = folder / f"{out.stem}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        first = int(state["step"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
    started, recent = time.monotonic(), 0.0
    for step in range(first, steps):
        images, *labels = batch(fingers, noise, seed, step, size)
        with torch.autocast("cpu", torch.bfloat16):
            cells = network(images.to(memory_format=torch.channels_last))
        error = loss(cells.float(), *labels)
        optimiser.zero_grad()
        torch.autograd.backward([error])
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean.update_parameters(network)
        recent += float(error)
        if (step + 1) % 100 == 0:
            spent = time.monotonic() - started
            print(f"step {step + 1} of {steps}: loss {recent / 100:.3f}, {spent:.0f} s", flush=True)
            recent = 0.0
        if (step + 1) % 500 == 0 or step + 1 == steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            partial = checkpoint.with_suffix(".part")
            torch.save({"step": step + 1, **state}, partial)
            partial.rename(checkpoint)
            export(mean.module, out)
    export(mean.module, out)


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


@torch.no_grad()
def _mean_of_late_steps(mean: Tensors, now: Tensors, step: torch.Tensor | int) -> None:
    """A mean whose memory grows with the steps taken, to 500."""
    share = max(1 / 500, 10 / (10 + int(step)))
    for average, value in zip(mean, now, strict=True):
        if average.is_floating_point():
            average.lerp_(value, share)
        else:
            average.copy_(value)


def export(network: nn.Module, out: Path) -> None:
    """Write the network as ONNX: batch normalisation folded in, weights kept in half precision."""
    partial = out.with_suffix(".part")
    torch.onnx.export(
        copy.deepcopy(network).eval(),
        (torch.zeros(1, 1, SIDE, SIDE),),
        str(partial),
        input_names=["image"],
        output_names=["cells"],
        dynamic_axes={"image": {2: "h", 3: "w"}, "cells": {2: "i", 3: "j"}},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(partial)
    casts = []
    for weights in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.ndim == 4:
            half = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weights.name}_half")
            casts.append(
                onnx.helper.make_node("Cast", [half.name], [weights.name], to=onnx.TensorProto.FLOAT)
            )
            weights.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, partial)
    partial.rename(out)


if __name__ == "__main__":
    app()
