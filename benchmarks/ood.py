"""Compare the out-of-distribution scores with those of the public toolkit pytorch_ood: ranks, AUROC and seconds.

    python benchmarks/ood.py --peer PATH          PATH holds the package pytorch_ood (unpacked, or its repository)
    python benchmarks/ood.py --peer PATH --json FILE

Both get the same features, logits, labels and head: K classes of normal features with a different spread in each
direction, and a linear head fitted by least squares. Outliers have no class mean and a more equal spread. For each
score it prints Spearman's rank correlation of the two over inliers and outliers together, the AUROC of each, and the
seconds for fitting and scoring. Two scores are the same detector if their ranks agree; their scale has no meaning. NECO
and GROOD are not in that toolkit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from nc_tools import ood
from nc_tools.ood import OODScore, separation


def make(samples: int, feature_dim: int, classes: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, nn.Linear]:
    """Return training features and labels, inliers, outliers and a head, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centers, spread = 0.12 * normal(classes, feature_dim) + 0.3, torch.linspace(0.2, 1.5, feature_dim)
    labels = torch.arange(samples) % classes
    train = centers[labels] + spread * normal(samples, feature_dim)
    inside = centers[labels[: samples // 5]] + spread * normal(samples // 5, feature_dim)
    outside = 0.3 + (0.9 * spread + 0.1) * normal(samples // 5, feature_dim)
    head = nn.Linear(feature_dim, classes)
    targets = nn.functional.one_hot(labels, classes).float()
    solved = torch.linalg.lstsq(torch.cat([train, torch.ones(samples, 1)], 1), 8 * targets).solution
    with torch.no_grad():
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
    return (train, labels), inside, outside, head.eval()


Scores = Callable[[Tensor, Tensor], Tensor]


def peers(train: Tensor, labels: Tensor, head: nn.Linear) -> dict[str, tuple[OODScore, Callable[[], Scores]]]:
    """Return our score and a function that builds theirs, by name, with equivalent settings."""
    from pytorch_ood import detector as peer

    weight, bias = head.weight.detach(), head.bias.detach()
    dims = train.shape[1] // 2

    def score_features(detector: Any) -> Scores:
        fitted = detector.fit_features(train, labels)
        return lambda features, _: fitted.predict_features(features)

    return {
        "msp": (ood.MSP(), lambda: lambda _, z: peer.MaxSoftmax.score(z)),
        "max_logit": (ood.MaxLogit(), lambda: lambda _, z: peer.MaxLogit.score(z)),
        "energy": (ood.Energy(), lambda: lambda _, z: peer.EnergyBased.score(z)),
        "gen": (ood.GEN(), lambda: lambda _, z: peer.GEN.score(z, gamma=0.1, M=100)),
        "knn": (ood.KNN(k=50), lambda: score_features(peer.KNN(None, k=50))),
        "mahalanobis": (ood.Mahalanobis(), lambda: score_features(peer.Mahalanobis(None))),
        "rmds": (ood.RMDS(), lambda: score_features(peer.RMD(None))),
        "vim": (ood.ViM(dims=dims), lambda: score_features(peer.ViM(None, d=dims, w=weight, b=bias))),
        "nci": (ood.NCI(alpha=1e-4), lambda: score_features(peer.NCI(None, head, alpha=1e-4))),
        "fdbd": (ood.FDBD(), lambda: score_features(peer.fDBD(None, head))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, metavar="PATH", help="folder that holds pytorch_ood")
    parser.add_argument("--size", type=int, nargs=3, default=(10_000, 256, 20), metavar=("N", "D", "K"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if not (args.peer / "pytorch_ood").is_dir():
        parser.error(f"--peer must be a folder that holds pytorch_ood, got {args.peer}: unpack the package there")
    sys.path.insert(0, str(args.peer))
    (train, labels), inside, outside, head = make(*args.size)
    logits, weight, bias = head(train).detach(), head.weight.detach(), head.bias.detach()
    both = torch.cat([inside, outside])
    both_logits = head(both).detach()
    print(f"N, D, K = {args.size[0]:,}, {args.size[1]}, {args.size[2]}; {len(inside):,} inliers and outliers each")
    record = {}
    for name, (score, make_peer) in peers(train, labels, head).items():
        start = time.perf_counter()
        ours = score.fit(train, logits, labels, weight, bias).score_samples(both, both_logits).double()
        middle = time.perf_counter()
        theirs = -make_peer()(both, both_logits).detach().double()  # higher is an outlier there
        end = time.perf_counter()
        ranks = float(spearmanr(ours, theirs).statistic)
        aurocs = [separation(s[: len(inside)], s[len(inside) :])["auroc"] for s in (ours, theirs)]
        record[name] = {"rank": ranks, "auroc": aurocs, "seconds": [middle - start, end - middle]}
        print(
            f"{name:<12} rank correlation {ranks:9.6f}   AUROC {aurocs[0]:.4f} ours, {aurocs[1]:.4f} theirs   "
            f"{middle - start:7.3f} s ours, {end - middle:7.3f} s theirs"
        )
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
