"""Random features and unit rows, in plain Python where a test checks a formula by loops."""

import math

import torch
from torch import Tensor

D, K, N = 16, 5, 11


def features(n: int = N, seed: int = 1) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def unit(row: list[float]) -> list[float]:
    norm = math.sqrt(sum(v * v for v in row))
    return [v / norm for v in row]
