"""Measure how long a training step takes alone and side by side with others, for networks of several sizes.

    python benchmarks/packs.py                 8 trainings of each network on one thread of the CPU
    python benchmarks/packs.py --runs 18 --only digits

Every training is ``fit`` with a linear head, cross-entropy, SGD and its own batches of random images. "Alone", the
trainings run one after the other. Time is processor time, so that other programs disturb it less. The first column is
what the rule of ``--pack auto`` reads: the multiply-adds of a batch in the backbone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nc_tools.data.mixing import Batches
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.models import CIFARResNet, ConvNet
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.in_steps import Steps
from nc_tools.training.loop import Fitted
from nc_tools.training.run_side_by_side import run_side_by_side

CLASSES = 10


def _mlp(pixels: int, width: int) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(pixels, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


# Name: the backbone, its features, the shape of an image, the batch size.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, int, int], int]] = {
    "digits: conv 8": (lambda: ConvNet(1, 8, 8), 32, (1, 8, 8), 32),
    "digits: conv 16": (lambda: ConvNet(1, 8, 16), 64, (1, 8, 8), 32),
    "digits: conv 8, batch 128": (lambda: ConvNet(1, 8, 8), 32, (1, 8, 8), 128),
    "16 px: conv 8": (lambda: ConvNet(3, 16, 8), 32, (3, 16, 16), 32),
    "32 px: conv 8": (lambda: ConvNet(3, 32, 8), 32, (3, 32, 32), 32),
    "32 px: conv 16, batch 64": (lambda: ConvNet(3, 32, 16), 64, (3, 32, 32), 64),
    "32 px: resnet8, batch 16": (lambda: CIFARResNet(8), 64, (3, 32, 32), 16),
    "64 numbers: two layers of 128": (lambda: _mlp(64, 128), 128, (1, 8, 8), 64),
}


class RandomBatches:
    """The batches of one epoch of random images, which are drawn before the training."""

    def __init__(self, shape: tuple[int, int, int], size: int, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(steps, size, *shape, generator=generator)
        index = torch.arange(size)
        self._epochs = [[Batch(images[step], index % CLASSES, index) for step in range(steps)]]

    def __len__(self) -> int:
        return len(self._epochs[0])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches from step ``start`` on."""
        return iter(self._epochs[epoch][start:])


def steps_of(name: str, batches: Batches) -> Steps[Fitted]:
    """Return the steps of a training of one epoch."""
    build, width, _, _ = NETWORKS[name]
    model = Classifier(build(), LinearHead(width, CLASSES))
    return fit.steps(model, CrossEntropyLoss(), batches, TrainConfig(epochs=1), OptimConfig(lr=0.01))


def seconds(name: str, loaders: list[RandomBatches], *, together: bool) -> float:
    """Return the processor seconds of all trainings."""
    started = time.process_time()
    groups = [loaders] if together else [[loader] for loader in loaders]
    for group in groups:
        for ended in run_side_by_side([steps_of(name, loader) for loader in group], on_alone=print):
            if ended.error is not None:
                raise ended.error
    return time.process_time() - started


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8, help="trainings of each network (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps of each training (default: %(default)s)")
    parser.add_argument("--only", default="", help="measure the networks whose names hold this text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':<32}{'million multiply-adds':>22}{'alone ms':>10}{'packed ms':>11}{'ratio':>7}")
    for name, (build, _, shape, size) in NETWORKS.items():
        if args.only not in name:
            continue
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            build()(torch.zeros(size, *shape))
        loaders = [RandomBatches(shape, size, args.steps, seed) for seed in range(args.runs)]
        seconds(name, loaders[:2], together=True)  # warm up
        alone, packed = (min(seconds(name, loaders, together=way) for _ in range(2)) for way in (False, True))
        per_step = 1000 / (args.runs * args.steps)
        print(
            f"{name:<32}{counter.get_total_flops() / 2e6:>22.1f}{alone * per_step:>10.2f}{packed * per_step:>11.2f}"
            f"{alone / packed:>7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
