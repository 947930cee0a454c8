"""Why an ETF head behind a projection memorizes more wrong labels: normalization, width, scale, decay, rate.

    python benchmarks/projection_memorization.py                                digits, 40 % of the labels drawn wrong
    python benchmarks/projection_memorization.py FEATURES.npz --given worse     features of your own

FEATURES holds ``features`` (N, D), ``clean`` (true labels) and an array of given labels. In each seed a random half of
the samples is trained on with the given labels; the others are the test set, with true labels. Features are
standardized, and the optimizer is AdamW. For each head and rate: the share of wrong labels that the head predicts after
the last epoch ("fitted"), accuracy after the last epoch, and the best accuracy of any epoch, which can be chosen only
with true labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nc_tools.features import FeatureLoader, FeatureSet, fit_standardize
from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, Head, LearnedScale, LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.models import Classifier
from nc_tools.specs import spec
from nc_tools.training import OptimConfig, TrainConfig
from nc_tools.training.packed import Pack, PackMember, fit_pack

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
DECAY = 1e-2
Make = Callable[[int, int, int], Head]
"""Function of D, K and a seed that returns a head; the seed draws its frame."""


def etf(scale: float | LearnedScale = LEARNED, projection: bool | int = True, *, normalize: bool = True) -> Make:
    return lambda d, k, seed: ETFHead(d, k, scale=scale, projection=projection, normalize=normalize, frame_seed=seed)


HEADS: dict[str, tuple[Make, float]] = {
    "linear": (lambda d, k, _: LinearHead(d, k), DECAY),
    "cosine, learned scale": (lambda d, k, _: CosineHead(d, k, scale=LEARNED), DECAY),
    "ETF, K wide, learned scale": (etf(), DECAY),
    "- not normalized, learned scale": (etf(normalize=False), DECAY),
    "- 64 wide": (etf(projection=64), DECAY),
    "- not normalized, scale 1": (etf(1.0, normalize=False), DECAY),
    "- scale 1": (etf(1.0), DECAY),
    "- scale 2": (etf(2.0), DECAY),
    "- scale 4": (etf(4.0), DECAY),
    "- scale 16": (etf(16.0), DECAY),
    "- weight decay 1": (etf(), 1.0),
    "- random class vectors": (
        lambda d, k, seed: FrozenRandomHead(d, k, projection=True, scale=LEARNED, frame_seed=seed),
        DECAY,
    ),
}


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """Return the digits as features (N, 64), their true labels, and labels of which 40 % are drawn wrong."""
    read = load_digits()
    true = torch.from_numpy(read.target).long()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(true), generator=generator) < 0.4
    other = (true + torch.randint(1, 10, true.shape, generator=generator)) % 10
    return torch.from_numpy(read.data).float(), true, torch.where(wrong, other, true)


def measure(
    make: Make, decay: float, data: tuple[Tensor, Tensor, Tensor], seeds: range, epochs: int
) -> dict[float, tuple[float, float, float]]:
    """Return rate -> (fitted share, last accuracy, best accuracy), each the mean over seeds."""
    features, true, given = data
    classes = int(true.max()) + 1
    members, tests = [], []
    for seed in seeds:
        order = torch.randperm(len(true), generator=torch.Generator().manual_seed(seed))
        train, test = order[: len(order) // 2], order[len(order) // 2 :]
        part = FeatureSet(features, given, tuple(map(str, range(classes))), "features")
        scaling = fit_standardize(part, train)
        scaled = scaling(features)
        samples = FeatureSet(scaled, given, part.classes, "scaled")
        loader = FeatureLoader(samples, train, batch_size=250, seed=seed)
        wrong = train[given[train] != true[train]]
        for rate in RATES:
            torch.manual_seed(seed)
            model = Classifier(nn.Identity(), make(features.shape[1], classes, seed))
            optim = OptimConfig(optimizer=spec(torch.optim.AdamW), lr=rate, weight_decay=decay)
            members.append(PackMember(model, CrossEntropyLoss(), loader, optim))
            tests.append((rate, model, scaled[test], true[test], scaled[wrong], given[wrong]))
    accuracies: dict[int, list[float]] = {i: [] for i in range(len(members))}

    @torch.no_grad()
    def epoch_end(_: int, __: Pack, ___: object) -> None:
        for i, (_rate, model, x, y, *_rest) in enumerate(tests):
            accuracies[i].append(float((model(x).argmax(1) == y).double().mean()))

    fit_pack(members, TrainConfig(epochs=epochs, batch_size=250, precision="float32"), epoch_end=epoch_end)
    values: dict[float, list[tuple[float, float, float]]] = {rate: [] for rate in RATES}
    for i, (rate, model, _x, _y, x_wrong, y_wrong) in enumerate(tests):
        with torch.no_grad():
            fitted = float((model(x_wrong).argmax(1) == y_wrong).double().mean())
        values[rate].append((fitted, accuracies[i][-1], max(accuracies[i])))
    means = {}
    for rate, rows in values.items():
        fitted, last, best = torch.tensor(rows).mean(0).tolist()
        means[rate] = fitted, last, best
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("features", type=Path, nargs="?", help=".npz with features, clean and given labels")
    parser.add_argument("--given", default="worse", help="name of the array of given labels (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs (default: %(default)s)")
    args = parser.parse_args()
    if args.features is None:
        data = digits()
    else:
        with np.load(args.features, allow_pickle=False) as file:
            data = (
                torch.from_numpy(file["features"]).float(),
                torch.from_numpy(file["clean"]).long(),
                torch.from_numpy(file[args.given]).long(),
            )
    share = float((data[1] != data[2]).double().mean())
    print(
        f"{len(data[1]):,} samples, {data[0].shape[1]} features, {share:.1%} of the labels wrong, {args.seeds} seeds\n"
    )
    print("| head | " + " | ".join(f"fitted / last / best at rate {rate:g}" for rate in RATES) + " |")
    print("|---|" + "---:|" * len(RATES))
    for name, (make, decay) in HEADS.items():
        rows = measure(make, decay, data, range(args.seeds), args.epochs)
        cells = (" / ".join(f"{100 * value:.1f}" for value in rows[rate]) for rate in RATES)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
