"""How many Python functions of nc_tools does one training step call, and in how many files are they?

    python benchmarks/step_calls.py           a table: training step, evaluation batch, metrics of an evaluated set
    python benchmarks/step_calls.py --list    the calls as well, in their order

A step is what the training loop does from one request for a batch to the next: make the batch, forward pass, loss,
backward pass, optimizer step, meter. It is counted in the middle of the second epoch, with a loader in memory that
crops and flips. A call is a call of a Python function of nc_tools, a generator that resumes, or a comprehension (up to
Python 3.11, where it is a function of its own). PyTorch's functions do not count. The numbers do not depend on the
machine. They say how much code a reader must follow to understand a step, not how long the step takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import nc_tools
from nc_tools import heads, losses
from nc_tools.data import Augment, BatchOptions, ImageSet, Loader, evaluation_batches
from nc_tools.data.image_set import Images
from nc_tools.data.mixing import Batches
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit

PACKAGE = str(Path(nc_tools.__file__).parent)
WIDTH, CLASSES, BATCH_SIZE, STEPS = 16, 4, 8, 8
Arm = tuple[heads.Head, losses.LossTerm]

ARMS: dict[str, Callable[[], Arm]] = {
    "linear head, cross-entropy": lambda: (heads.LinearHead(WIDTH, CLASSES), losses.CrossEntropyLoss()),
    "linear head, label smoothing": lambda: (heads.LinearHead(WIDTH, CLASSES), losses.CrossEntropyLoss(0.1)),
    "linear head, logit adjustment": lambda: (
        heads.LinearHead(WIDTH, CLASSES),
        losses.LogitAdjustedLoss([BATCH_SIZE * STEPS // CLASSES] * CLASSES),
    ),
    "linear head, cross-entropy + feature decay": lambda: (
        heads.LinearHead(WIDTH, CLASSES),
        losses.WeightedSumLoss(
            [losses.term(1.0, losses.CrossEntropyLoss()), losses.term(0.1, losses.FeatureDecayLoss())]
        ),
    ),
    "cosine head, cross-entropy": lambda: (heads.CosineHead(WIDTH, CLASSES), losses.CrossEntropyLoss()),
    "ETF head, cross-entropy": lambda: (heads.ETFHead(WIDTH, CLASSES), losses.CrossEntropyLoss()),
    "ETF head, dot regression": lambda: (heads.ETFHead(WIDTH, CLASSES), losses.DotRegressionLoss()),
    "nearest ETF head, cross-entropy": lambda: (heads.NearestETFHead(WIDTH, CLASSES), losses.CrossEntropyLoss()),
}


class CallRecorder:
    """Records the file and name of each function of nc_tools that is called inside the ``with`` block."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def _record(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            self.calls.append((str(Path(code.co_filename).relative_to(PACKAGE)), code.co_name))

    def __enter__(self) -> CallRecorder:
        sys.setprofile(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def marked(self, batches: Iterator[Batch], marks: list[int]) -> Iterator[Batch]:
        """Yield the batches; note in ``marks`` how many calls there were before each request for one."""
        while True:
            marks.append(len(self.calls))
            batch = next(batches, None)
            if batch is None:
                return
            yield batch


class MarkedBatches:
    """A loader that marks each request for a batch."""

    def __init__(self, batches: Batches, recorder: CallRecorder) -> None:
        self.batches, self.recorder = batches, recorder
        self.marks: list[int] = []

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        return self.recorder.marked(self.batches.epoch(epoch, start), self.marks)


def images() -> ImageSet:
    count = BATCH_SIZE * STEPS
    pixels = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple(f"class {k}" for k in range(CLASSES))
    return ImageSet(pixels, torch.arange(count) % CLASSES, classes=names, name="random")


def model_of(head: heads.Head) -> Classifier:
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, WIDTH), nn.ReLU()), head)


OPTIONS = BatchOptions(batch_size=BATCH_SIZE, mean=[0.5] * 3, std=[0.25] * 3)


def training_step(head: heads.Head, loss: losses.LossTerm) -> list[tuple[str, str]]:
    """Return the calls (file, function) of one step in the middle of the second epoch."""
    options = replace(OPTIONS, augment=Augment(padding=2, flip=True))
    loader = Loader(images(), torch.arange(BATCH_SIZE * STEPS), options)
    recorder = CallRecorder()
    batches = MarkedBatches(loader, recorder)
    with recorder:
        fit(model_of(head), loss, batches, TrainConfig(epochs=2), OptimConfig(lr=0.01))
    middle = len(batches.marks) - STEPS // 2
    return recorder.calls[batches.marks[middle] : batches.marks[middle + 1]]


def evaluation(head: heads.Head, _loss: losses.LossTerm) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the calls for one batch in the middle of an evaluation pass, and for the metrics of the evaluated set."""
    model, data = model_of(head), images()
    recorder = CallRecorder()
    marks: list[int] = []

    def batches(images: Images, indices: Tensor | None) -> Iterator[Batch]:
        return recorder.marked(evaluation_batches(images, indices, OPTIONS), marks)

    evaluator = Evaluator(model, batches, class_counts=[BATCH_SIZE * STEPS // CLASSES] * CLASSES, dtype=torch.float32)
    test = EvaluationSet("test", data)
    with recorder:
        evaluator.outputs(test)
        end = len(recorder.calls)
        evaluator.accuracy(test)
        evaluator.collapse(test)
    middle = STEPS // 2
    return recorder.calls[marks[middle] : marks[middle + 1]], recorder.calls[end:]


def show(name: str, calls: list[tuple[str, str]], *, listed: bool) -> None:
    print(f"  {name:<46}{len(calls):>5} calls {len({file for file, _ in calls}):>3} files")
    for file, function in calls if listed else ():
        print(f"      {file:<36} {function}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print each call")
    listed = parser.parse_args().list
    print(f"One training step (Python {sys.version_info.major}.{sys.version_info.minor})")
    for name, arm in ARMS.items():
        show(name, training_step(*arm()), listed=listed)
    passes = {name: evaluation(*arm()) for name, arm in ARMS.items() if "cross-entropy" in name and "+" not in name}
    print("One batch of an evaluation pass")
    for name, (batch, _) in passes.items():
        show(name, batch, listed=listed)
    print("Accuracy, calibration and collapse of an evaluated set")
    for name, (_, metrics) in passes.items():
        show(name, metrics, listed=False)


if __name__ == "__main__":
    main()
