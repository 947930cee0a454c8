"""Features of a few classes of unequal size."""

import torch
from torch import Tensor

D, K, N = 12, 4, 90


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return features and labels of unequal classes (40, 30, 15, 5), with a mean that is not zero."""
    labels = torch.tensor([0] * 40 + [1] * 30 + [2] * 15 + [3] * 5)[torch.randperm(N, generator=seeded(seed))]
    means = torch.randn(K, D, generator=seeded(seed + 1))
    return 0.5 + means[labels] + spread * torch.randn(N, D, generator=seeded(seed + 2)), labels
