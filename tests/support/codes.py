"""Random codes, and the inner products of a code."""

import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def products(w: Tensor) -> Tensor:
    gram = w @ w.T
    return gram[~torch.eye(len(w), dtype=torch.bool)]


def random_code(num: int, dim: int, seed: int = 0) -> Tensor:
    rows = torch.randn(num, dim, dtype=torch.float64, generator=generator(seed))
    return torch.nn.functional.normalize(rows, dim=1)
