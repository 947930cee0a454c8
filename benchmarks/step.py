"""Images trained per second: the package's loop beside the usual loop and, on a GPU, one captured step, the floor.

    python benchmarks/step.py --device cuda --model resnet32

The rows are timed in turns. Those of nc_tools are ``fit`` as recipes call it, which on a GPU records its step as a CUDA
graph and replays it; "capture=false" is the same without the graph. The recording is not timed, but the step before it
is. "usual loop" is float32 PyTorch as tutorials write it, with the images on the device and ``loss.item()`` at each
step, without augmentation. "one captured step" is a CUDA graph of a whole step (gather, crop, flip, normalize, forward,
backward, update) in bfloat16 and channels-last, replayed: the speed of the GPU without Python between its kernels.
"compiled" has the network compiled inside the capture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from nc_tools.data import Augment, BatchOptions, ImageSet, Loader
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.heads.head import Head
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss, LossTerm
from nc_tools.models import Classifier
from nc_tools.models.backbones import build_backbone
from nc_tools.training import OptimConfig, TrainConfig, fit

CLASSES, SIDE, PADDING = 10, 32, 4
FLOOR = "one captured step"

Run: TypeAlias = Callable[[], float | None]
"""Trains for some steps; returns the seconds that they took if it counts them itself."""


class Benchmark:
    """Random images of the size of CIFAR-10 on a device, and ways to train on them for some steps."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        self.model: str = arguments.model
        self.batch: int = arguments.batch
        self.steps: int = arguments.steps
        count = max(arguments.images, self.batch)
        self.images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
        self.labels = torch.randint(0, CLASSES, (count,))

    def backbone(self) -> nn.Module:
        """Return the network without its classifier."""
        return build_backbone(self.model, in_channels=3, image_size=SIDE, width=16, seed=0).to(self.device)

    def network(self) -> nn.Sequential:
        """Return the network with a linear classifier."""
        backbone = self.backbone()
        with torch.no_grad():
            width = backbone(torch.zeros(2, 3, SIDE, SIDE, device=self.device)).shape[1]
        return nn.Sequential(backbone, nn.Linear(width, CLASSES, device=self.device))

    def wait(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def usual(self) -> Callable[[], None]:
        """Return a function that trains by the loop of a tutorial."""
        model, images, labels = self.network(), self.images.to(self.device), self.labels.to(self.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)

        def run() -> None:
            for _ in range(self.steps):
                chosen = torch.randint(0, len(images), (self.batch,), device=self.device)
                inputs = (images[chosen].float() / 255 - 0.5) / 0.25
                loss = F.cross_entropy(model(inputs), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()

        return run

    def ours(
        self, head: type[Head], loss: LossTerm, *, compiled: bool = False, capture: bool = True
    ) -> Callable[[], float]:
        """Return a function that trains by ``fit`` with crop and flip, as recipes call it, and returns the seconds."""
        backbone = self.backbone()
        with torch.no_grad():
            width = backbone(torch.zeros(2, 3, SIDE, SIDE, device=self.device)).shape[1]
        classifier = Classifier(backbone, head(width, CLASSES)).to(self.device)
        names = tuple("abcdefghij")
        data = ImageSet(self.images, self.labels, names, "random")
        training = TrainConfig(epochs=1, batch_size=self.batch, compile=compiled, capture=capture)
        training.place(classifier, self.device)
        options = BatchOptions(
            batch_size=self.batch, mean=[0.5] * 3, std=[0.25] * 3, augment=Augment(padding=PADDING, flip=True),
            device=self.device, channels_last=training.layout_on(self.device) is torch.channels_last,
        )  # fmt: skip
        indices = torch.arange(self.batch * self.steps) % len(data)
        loader, loss = Loader(data, indices, options), loss.to(self.device)
        return lambda: fit(classifier, loss, loader, training, OptimConfig(lr=0.01)).seconds

    def captured(self, *, compiled: bool) -> Callable[[], None]:
        """Return a function that replays one training step recorded as a CUDA graph."""
        model = self.network().to(memory_format=torch.channels_last)
        network = torch.compile(model) if compiled else model
        images, labels = self.images.to(self.device), self.labels.to(self.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=True)
        rows = torch.arange(self.batch, device=self.device)[:, None, None, None]
        channels, side = torch.arange(3, device=self.device)[:, None, None], torch.arange(SIDE, device=self.device)

        def step() -> None:
            chosen = torch.randint(0, len(images), (self.batch,), device=self.device)
            top, left = torch.randint(0, 2 * PADDING + 1, (2, self.batch), device=self.device)
            flipped = torch.rand(self.batch, device=self.device) < 0.5
            across = torch.where(flipped[:, None], (left[:, None] + side).flip(1), left[:, None] + side)
            padded = F.pad(images[chosen], (PADDING,) * 4)
            pixels = padded[rows, channels, (top[:, None] + side)[:, None, :, None], across[:, None, None, :]]
            inputs = pixels.float().sub_(127).div_(64).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

        def run() -> None:
            for _ in range(self.steps):
                graph.replay()

        return run

    def rate(self, run: Run) -> float:
        """Return the images per second of one turn."""
        self.wait()
        start = time.perf_counter()
        seconds = run()
        self.wait()
        return self.batch * self.steps / (time.perf_counter() - start if seconds is None else seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="resnet32", choices=("conv", "resnet20", "resnet32"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=12_406)
    parser.add_argument("--steps", type=int, default=100, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also the loop with training.compile")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    benchmark = Benchmark(arguments)
    makers: dict[str, Callable[[], Run]] = {
        "usual loop, float32": benchmark.usual,
        "nc_tools, linear + cross-entropy": lambda: benchmark.ours(LinearHead, CrossEntropyLoss()),
        "  capture=false": lambda: benchmark.ours(LinearHead, CrossEntropyLoss(), capture=False),
        "nc_tools, ETF + dot regression": lambda: benchmark.ours(ETFHead, DotRegressionLoss()),
    }
    if arguments.compile:
        makers["nc_tools, linear, compiled"] = lambda: benchmark.ours(LinearHead, CrossEntropyLoss(), compiled=True)
    if benchmark.device.type == "cuda":
        makers[FLOOR] = lambda: benchmark.captured(compiled=False)
        makers[f"{FLOOR}, compiled"] = lambda: benchmark.captured(compiled=True)
    name = torch.cuda.get_device_name(benchmark.device) if benchmark.device.type == "cuda" else "CPU"
    print(f"{arguments.model}, batch {arguments.batch}, {name}, torch {torch.__version__}", flush=True)
    runs = {key: maker() for key, maker in makers.items()}
    for run in runs.values():
        run()  # the first time warms up
    rates: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(arguments.turns):
        for key, run in runs.items():
            rates[key].append(benchmark.rate(run))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for key, median in medians.items():
        shares = [f"{median / medians['usual loop, float32']:6.2f} of the usual loop"]
        if FLOOR in medians:
            shares.append(f"{median / medians[FLOOR]:6.2f} of {FLOOR}")
        print(f"{key:<36}{median:12,.0f} images/s   {'   '.join(shares)}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"device": name, "images_per_s": rates}, indent=1))


if __name__ == "__main__":
    main()
