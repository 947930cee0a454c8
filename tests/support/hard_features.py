"""Features on which arithmetic in float32 loses digits, with labels, a head and outliers; all values are float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """Training features and labels, features of other samples of the same classes, near outliers, and a head.

    Attributes:
        features: (N, D), float32.
        labels: (N,).
        queries: (M, D), float32.
        query_labels: (M,).
        outliers: (M, D), float32: of the same classes, with a spread that is half as large again.
        weight: (K, D), float32.
        bias: (K,), float32.
    """

    features: Tensor
    labels: Tensor
    queries: Tensor
    query_labels: Tensor
    outliers: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return the head's logits in the type of the features, rounded to float32 once."""
        exact = features.double() @ self.weight.double().T + self.bias.double()
        return exact.float().to(features.dtype)


Spread = Callable[[Tensor], Tensor]


def draw(
    n: int = 240,
    d: int = 24,
    k: int = 5,
    *,
    noise: float = 1.0,
    between: float = 1.0,
    offset: float = 0.0,
    change: Spread | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> Sample:
    """Return normal classes: offset + between * mean + noise, through a map of all features."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means = between * normal(k, d)
    y = (torch.arange(n) % k)[torch.randperm(n, generator=generator)] if labels is None else labels
    place = torch.arange(60) % k
    parts = [means[y] + noise * normal(len(y), d), means[place] + noise * normal(60, d)]
    parts += [means[place] + 1.5 * noise * normal(60, d)]
    x, queries, outliers = ((part if change is None else change(part)).add(offset).float() for part in parts)
    weight = (means + 0.1 * between * normal(k, d)).div(between * d**0.5)
    return Sample(x, y, queries, place, outliers, weight.float(), normal(k).float())


def scaled_by_index(x: Tensor) -> Tensor:
    """Deviations 1, 1/2, ..., 1/D."""
    return x / torch.arange(1, x.shape[1] + 1)


def rotated_by_index(x: Tensor) -> Tensor:
    """The same, rotated, so that no single feature shows it."""
    generator = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=generator, dtype=torch.float64)).Q
    return scaled_by_index(x) @ turn


def one_times_thousand(x: Tensor) -> Tensor:
    """The first feature in another unit."""
    return torch.cat([x[:, :1] * 1000, x[:, 1:]], dim=1)


def with_dead_features(x: Tensor) -> Tensor:
    """ReLU features; one is always zero and one always 0.3."""
    return torch.cat([x[:, :-2].relu(), torch.zeros_like(x[:, :1]), torch.full_like(x[:, :1], 0.3)], dim=1)


REGIMES: dict[str, Callable[[], Sample]] = {
    "plain": draw,
    "tiny noise": lambda: draw(noise=1e-5),
    "deviations 1/i": lambda: draw(d=64, n=400, change=scaled_by_index),
    "deviations 1/i, rotated": lambda: draw(d=64, n=400, change=rotated_by_index),
    "one feature x 1000": lambda: draw(change=one_times_thousand),
    "offset of 1e6 noise widths": lambda: draw(n=2000, offset=1e6),
    "tiny noise far from the origin": lambda: draw(n=2000, noise=1e-2, between=10, offset=1e3),
    "K > D": lambda: draw(k=12, d=5),
    "N < D": lambda: draw(n=40, d=64),
    "classes of one sample": lambda: draw(labels=torch.cat([torch.arange(5), torch.arange(90) % 3])),
    "dead features": lambda: draw(change=with_dead_features),
}
"""Ways in which features are hard to measure."""
