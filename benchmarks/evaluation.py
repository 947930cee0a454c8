"""Time of a whole evaluation: 50,000 training images, 10,000 test images, 10,000 outliers, D = 512, K = 100.

    python benchmarks/evaluation.py                                    the figures as asked for
    python benchmarks/evaluation.py --threads 1 --cpu-time             on a machine that others use at the same time
    python benchmarks/evaluation.py --device cuda
    python benchmarks/evaluation.py --train 2000 --test 500 --outliers 500 --feature-dim 64 --classes 10

Everything that is measured once the features are there: recognition, calibration before and after a fitted temperature,
collapse of training and test set, all twelve out-of-distribution scores with their four measures, and the readers of
transfer on as many images as a run takes (4,000 and 4,000 by default). What the model itself takes is not in it. The
features are synthetic: ReLU of class means and noise, a head near the means, outliers between and beside the classes.
Each part is timed once, so the first touches of memory are in it.
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
    """Prints each part's seconds as it ends."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.start = device, CLOCK()
        self.last, self.part = self.start, ""

    def now(self, part: str) -> None:
        """End the part in progress and begin another; "" begins none."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        moment = CLOCK()
        if self.part:
            print(f"{moment - self.last:8.2f} s", flush=True)
        if part:
            print(f"  {part:<32}", end="", flush=True)
        self.last, self.part = moment, part


def make(number: int, weight: Tensor, generator: torch.Generator, *, known: bool) -> Collected:
    """Features around the class vectors, or around mixtures of two of them where there is no class."""
    labels = torch.randint(len(weight), (number,), generator=generator)
    centers = weight[labels]
    if not known:
        centers = (centers + weight[torch.randint(len(weight), (number,), generator=generator)]) / 2
    features = (centers + 1.5 * torch.randn(centers.shape, generator=generator)).relu_()
    return Collected(features, features, features @ weight.T / weight.shape[1] ** 0.5, labels)


def moved(part: Collected, device: torch.device) -> Collected:
    return Collected(*(getattr(part, name).to(device) for name in ("features", "embedded", "logits", "labels")))


def evaluate(
    train: Collected, test: Collected, outliers: Collected, weight: Tensor, transfer: int, told: Callable[[str], None]
) -> dict[str, float]:
    counts = train.labels.bincount(minlength=len(weight)).cpu()
    told("recognition and calibration")
    values = classification(test.logits, test.labels, counts) | calibration(test.logits, test.labels)
    temperature = fit_temperature(test.logits, test.labels)
    values |= calibration(test.logits / temperature, test.labels)
    for name, part in (("training", train), ("test", test)):
        told(f"collapse of the {name} set")
        values |= neural_collapse(part.features, part.labels, weight, logits=part.logits)
    values |= ood_report(
        train, test, {"far": outliers}, weight, progress=lambda score: told(f"out-of-distribution: {score}")
    )
    if transfer:
        told(f"transfer, {transfer:,} images")
        values |= transfer_report(
            train.features[:transfer],
            train.labels[:transfer],
            test.features[:transfer],
            test.labels[:transfer],
            seed=0,
        )
    told("")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--outliers", type=int, default=10_000)
    parser.add_argument("--feature-dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--transfer", type=int, default=4000, help="images of each part; 0 leaves it out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; by default what torch takes")
    parser.add_argument("--cpu-time", action="store_true", help="processor time; meaningful with --threads 1")
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
    train, test = (moved(make(n, weight, generator, known=True), device) for n in (options.train, options.test))
    outliers = moved(make(options.outliers, weight, generator, known=False), device)
    print(
        f"{options.train:,} training, {options.test:,} test images, {options.outliers:,} outliers, "
        f"D = {options.feature_dim}, K = {options.classes}; {where}, torch {torch.__version__}"
    )
    clock = Clock(device)
    values = evaluate(train, test, outliers, weight.to(device), options.transfer, clock.now)
    print(f"  {'whole evaluation':<32}{CLOCK() - clock.start:8.2f} s")
    told = {key.split("/")[1]: value for key, value in values.items() if key.endswith("/auroc")}
    print("  AUROC " + "  ".join(f"{name} {value:.3f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
