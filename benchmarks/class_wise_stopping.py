"""Does stopping each class at its own best epoch help against wrong labels? A linear head on fixed features.

    python benchmarks/class_wise_stopping.py                                digits, 40 % of the labels drawn wrong
    python benchmarks/class_wise_stopping.py FEATURES.npz --given worse     features of your own

The file and the halves of a seed are those of ``projection_memorization.py``. A fifth of the training half is the
hold-out, with given labels. Of five learning rates, the one whose last epoch is best on the hold-out is used. Four
heads come from it:

- ``last``: after the last epoch.
- ``stopped``: after the epoch with the best accuracy on the hold-out.
- ``samples``: a second training, in which the samples of a class leave the loss after the epoch with the best recall of
  that class on the hold-out.
- ``vectors``: the vector and bias of each class are those of the epoch with its best recall.

Printed: accuracy on true labels, the share of wrong training labels that a head predicts, and the mean and 95 % t
interval over seeds of the paired difference in accuracy to ``last``. The test halves of the seeds overlap.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from projection_memorization import digits
from scipy.stats import t
from torch import Tensor, nn

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
HEADS = ("last", "stopped", "samples", "vectors")


@dataclass(frozen=True)
class Part:
    """A part of the samples in one seed.

    Attributes:
        x: Standardized features (N, D).
        given: Given labels (N,).
        true: True labels (N,).
    """

    x: Tensor
    given: Tensor
    true: Tensor


@dataclass(frozen=True)
class Epoch:
    """A head after an epoch, with its results on the hold-out.

    Attributes:
        weight: (K, D).
        bias: (K,).
        accuracy: Accuracy on the given labels of the hold-out.
        recalls: Recall of each class on the same labels (K,).
    """

    weight: Tensor
    bias: Tensor
    accuracy: float
    recalls: Tensor


def train(fit: Part, holdout: Part, rate: float, epochs: int, seed: int, last: Tensor | None = None) -> list[Epoch]:
    """Train a linear head and return it after every epoch.

    Args:
        fit: Samples to train on.
        holdout: Samples on which each epoch is measured.
        rate: Learning rate of AdamW at the start of the cosine schedule.
        epochs: Number of epochs.
        seed: Seed of the initial weights and of the order of the samples.
        last: Number of epochs after which the samples of a class leave the loss (K,); None to keep them.
    """
    classes = int(holdout.given.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = nn.Linear(fit.x.shape[1], classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=1e-2)
    steps = epochs * -(-len(fit.x) // 250)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    result = []
    for epoch in range(epochs):
        for batch in torch.randperm(len(fit.x), generator=generator).split(250):
            labels = fit.given[batch]
            losses = nn.functional.cross_entropy(head(fit.x[batch]), labels, reduction="none")
            kept = torch.ones_like(losses) if last is None else (last[labels] > epoch).to(losses)
            optimizer.zero_grad()
            (losses * kept).mean().backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            hits = (head(holdout.x).argmax(1) == holdout.given).float()
        recalls = torch.stack([hits[holdout.given == k].mean() for k in range(classes)])
        weight, bias = (parameter.detach().clone() for parameter in (head.weight, head.bias))
        result.append(Epoch(weight, bias, float(hits.mean()), recalls))
    return result


def heads(fit: Part, holdout: Part, epochs: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return weight (K, D) and bias (K,) of the four heads of a seed."""
    runs = {rate: train(fit, holdout, rate, epochs, seed) for rate in RATES}
    rate = max(RATES, key=lambda r: runs[r][-1].accuracy)
    run = runs[rate]
    stopped = max(run, key=lambda epoch: epoch.accuracy)
    best = torch.stack([epoch.recalls for epoch in run]).argmax(0)
    again = train(fit, holdout, rate, epochs, seed, last=best + 1)[-1]
    classes = range(len(best))
    weight = torch.stack([run[best[k]].weight[k] for k in classes])
    bias = torch.stack([run[best[k]].bias[k] for k in classes])
    return {
        "last": (run[-1].weight, run[-1].bias),
        "stopped": (stopped.weight, stopped.bias),
        "samples": (again.weight, again.bias),
        "vectors": (weight, bias),
    }


def measure(data: tuple[Tensor, Tensor, Tensor], epochs: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return accuracy on true labels and the share of wrong labels that are fitted, by head."""
    features, true, given = data
    order = torch.randperm(len(true), generator=torch.Generator().manual_seed(seed))
    half = len(order) // 2
    mean, std = features[order[:half]].mean(0), features[order[:half]].std(0).clamp(min=1e-6)
    scaled = (features - mean) / std
    cut = half * 4 // 5
    parts = (order[:cut], order[cut:half], order[half:])
    fit, holdout, test = (Part(scaled[index], given[index], true[index]) for index in parts)
    wrong = fit.given != fit.true
    values = {}
    for name, (weight, bias) in heads(fit, holdout, epochs, seed).items():
        accuracy = (nn.functional.linear(test.x, weight, bias).argmax(1) == test.true).double().mean()
        predicted = nn.functional.linear(fit.x[wrong], weight, bias).argmax(1)
        values[name] = (float(accuracy), float((predicted == fit.given[wrong]).double().mean()))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("features", type=Path, nargs="?", help=".npz with features, clean and given labels")
    parser.add_argument("--given", default="worse", help="name of the array of given labels (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs (default: %(default)s)")
    args = parser.parse_args()
    if args.features is None:
        data = digits()
    else:
        with np.load(args.features, allow_pickle=False) as file:
            arrays = [torch.from_numpy(file[name]) for name in ("features", "clean", args.given)]
        data = (arrays[0].float(), arrays[1].long(), arrays[2].long())
    share = float((data[1] != data[2]).double().mean())
    print(f"{len(data[1]):,} samples, {data[0].shape[1]} features, {share:.1%} of the labels wrong, {args.seeds} seeds")
    rows = [measure(data, args.epochs, seed) for seed in range(args.seeds)]
    print("\n| head | accuracy | difference to `last` [95 %] | wrong labels fitted |\n|---|---:|---:|---:|")
    for name in HEADS:
        accuracy, fitted = (100 * np.array([row[name][i] for row in rows]) for i in (0, 1))
        differences = accuracy - 100 * np.array([row["last"][0] for row in rows])
        half = t.ppf(0.975, len(rows) - 1) * differences.std(ddof=1) / len(rows) ** 0.5
        mean = differences.mean()
        interval = "" if name == "last" else f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"
        print(f"| {name} | {accuracy.mean():.1f} ± {accuracy.std(ddof=1):.1f} | {interval} | {fitted.mean():.1f} |")


if __name__ == "__main__":
    main()
