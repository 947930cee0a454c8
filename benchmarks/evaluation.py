"""Time of a complete evaluation: 50,000 training images, 10,000 test images, 10,000 outliers, D = 512, K = 100.

    python benchmarks/evaluation.py                                    wall-clock time
    python benchmarks/evaluation.py --threads 1 --cpu-time             processor time, on a machine with other work
    python benchmarks/evaluation.py --device cuda
    python benchmarks/evaluation.py --train 2000 --test 500 --outliers 500 --feature-dim 64 --classes 10

Times all metrics of given features: accuracy, calibration before and after a fitted temperature, collapse of training
and test set, all twelve out-of-distribution scores with their four metrics, and the transfer measures of frozen
features (probes, neighbors and class means) on a set of the size that a run uses (4,000 and 4,000 images by default).
The passes through the model are not included. The features are synthetic: ReLU of class means plus noise, a head near
the means, outliers between and beside the classes. Each part is timed once, so the times include the first allocation
of memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nc_tools.metrics import calibration, classification, fit_temperature, neural_collapse, transfer_report
from nc_tools.ood import ood_report
from nc_tools.records import Collected

CLOCK = time.perf_counter


class Clock:
    """Prints the seconds of each part when the next one starts."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.started = device, CLOCK()
        self.last, self.part = self.started, ""

    def start_part(self, part: str) -> None:
        """End the part in progress and start another; "" starts none."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        moment = CLOCK()
        if self.part:
            print(f"{moment - self.last:8.2f} s", flush=True)
        if part:
            print(f"  {part:<32}", end="", flush=True)
        self.last, self.part = moment, part


def make_set(number: int, weight: Tensor, generator: torch.Generator, *, outliers: bool = False) -> Collected:
    """Return features around the class vectors, or for outliers around the mean of two of them."""
    labels = torch.randint(len(weight), (number,), generator=generator)
    centers = weight[labels]
    if outliers:
        centers = (centers + weight[torch.randint(len(weight), (number,), generator=generator)]) / 2
    features = (centers + 1.5 * torch.randn(centers.shape, generator=generator)).relu_()
    return Collected(features, features, features @ weight.T / weight.shape[1] ** 0.5, labels)


def on_device(part: Collected, device: torch.device) -> Collected:
    return Collected(*(getattr(part, name).to(device) for name in ("features", "embedded", "logits", "labels")))


def evaluate(
    train: Collected,
    test: Collected,
    outliers: Collected,
    weight: Tensor,
    transfer: int,
    start_part: Callable[[str], None],
) -> dict[str, float]:
    counts = train.labels.bincount(minlength=len(weight)).cpu()
    start_part("accuracy and calibration")
    values = classification(test.logits, test.labels, counts) | calibration(test.logits, test.labels)
    temperature = fit_temperature(test.logits, test.labels)
    values |= calibration(test.logits / temperature, test.labels)
    for name, part in (("training", train), ("test", test)):
        start_part(f"collapse of the {name} set")
        values |= neural_collapse(part.features, part.labels, weight, logits=part.logits)
    values |= ood_report(
        train, test, {"far": outliers}, weight, progress=lambda score: start_part(f"out-of-distribution: {score}")
    )
    if transfer:
        start_part(f"transfer, {transfer:,} images")
        values |= transfer_report(
            train.features[:transfer],
            train.labels[:transfer],
            test.features[:transfer],
            test.labels[:transfer],
            seed=0,
        )
    start_part("")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--outliers", type=int, default=10_000)
    parser.add_argument("--feature-dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument(
        "--transfer", type=int, default=4000, help="transfer images, for training and test each; 0 leaves transfer out"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    parser.add_argument("--cpu-time", action="store_true", help="report processor time; use it with --threads 1")
    options = parser.parse_args()
    if options.cpu_time:
        global CLOCK
        CLOCK = time.process_time
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(options.classes, options.feature_dim, generator=generator)
    train, test = (on_device(make_set(n, weight, generator), device) for n in (options.train, options.test))
    outliers = on_device(make_set(options.outliers, weight, generator, outliers=True), device)
    print(
        f"{options.train:,} training, {options.test:,} test images, {options.outliers:,} outliers, "
        f"D = {options.feature_dim}, K = {options.classes}; {where}, torch {torch.__version__}"
    )
    clock = Clock(device)
    values = evaluate(train, test, outliers, weight.to(device), options.transfer, clock.start_part)
    print(f"  {'complete evaluation':<32}{CLOCK() - clock.started:8.2f} s")
    auroc = {key.split("/")[1]: value for key, value in values.items() if key.endswith("/auroc")}
    print("  AUROC " + "  ".join(f"{name} {value:.3f}" for name, value in auroc.items()))


if __name__ == "__main__":
    main()
