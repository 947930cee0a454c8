"""Errors of estimated transition matrices of label noise for 2 to 1,000 classes and long tails, beside cleanlab's.

    python benchmarks/transition.py --peer PATH        PATH holds the package cleanlab

The logits imitate a model that has learned the noisy posterior of nearly certain samples, with random errors. "97th of
all" is the anchor as published for CIFAR-10, at the 97th percentile over all samples. An error is the mean over true
classes of half the sum of a row's absolute differences (0 to 1). For human noise see benchmarks/suspects.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nc_tools.metrics import anchor_transition, confident_transition, confusion_transition, transition_error

COUNTS = {
    "K 2": [1000, 1000],
    "K 2, 20:1": [4000, 200],
    "K 10": [500] * 10,
    "K 10, 100:1": [round(5000 * 100 ** (-k / 9)) for k in range(10)],
    "K 100": [200] * 100,
    "K 100, 20:1": [round(600 * 20 ** (-k / 99)) for k in range(100)],
    "K 1000": [30] * 1000,
}


def noise(kind: str, classes: int, rate: float) -> Tensor:
    if kind == "symmetric":
        return torch.full((classes, classes), rate / (classes - 1)).double().fill_diagonal_(1 - rate)
    return (1 - rate) * torch.eye(classes).double() + rate * torch.eye(classes).double().roll(1, dims=1)


def learned(counts: list[int], matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and given labels (N,) for true class counts (K,) and a transition matrix (K, K)."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    doubt = 0.1 * torch.rand(len(true), 1, generator=generator, dtype=torch.float64) ** 2
    clean = doubt * torch.rand(len(true), len(counts), generator=generator, dtype=torch.float64) / len(counts)
    clean[torch.arange(len(true)), true] += 1 - doubt[:, 0]
    posterior = clean / clean.sum(1, keepdim=True) @ matrix
    logits = (posterior + 1e-9).log() + 0.2 * torch.randn(posterior.shape, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(matrix[true], 1, generator=generator).squeeze(1)


def published_anchor(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return p[p.argsort(dim=0)[round(0.97 * (len(p) - 1))]]


def cleanlab_transition(logits: Tensor, labels: Tensor) -> Tensor:
    from cleanlab.count import compute_confident_joint, estimate_latent

    joint = compute_confident_joint(labels.numpy(), logits.softmax(1).numpy())
    return torch.from_numpy(np.asarray(estimate_latent(joint, labels.numpy())[1]).T.copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="PATH", help="folder that holds cleanlab")
    args = parser.parse_args()
    estimates: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "97th of all": lambda z, _: published_anchor(z),
        "anchor": lambda z, _: anchor_transition(z),
        "confusion": confusion_transition,
        "confident": confident_transition,
    }
    if args.peer is not None:
        if not (args.peer / "cleanlab").is_dir():
            parser.error(f"--peer must be a folder that holds cleanlab, got {args.peer}: unpack the package there")
        sys.path.append(str(args.peer))
        estimates["cleanlab"] = cleanlab_transition
    print(f"{'':<30}{'identity':>12}" + "".join(f"{name:>13}" for name in estimates))
    for name, counts in COUNTS.items():
        for kind, rate in (("symmetric", 0.0), ("symmetric", 0.4), ("pair", 0.3)):
            matrix = noise(kind, len(counts), rate)
            logits, labels = learned(counts, matrix)
            errors = [transition_error(torch.eye(len(counts)), matrix)]
            errors += [transition_error(estimate(logits, labels), matrix) for estimate in estimates.values()]
            print(f"{f'{name}, {kind} {rate:.0%}':<30}{errors[0]:12.3f}" + "".join(f"{e:13.3f}" for e in errors[1:]))


if __name__ == "__main__":
    main()
