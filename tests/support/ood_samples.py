"""A training set of features with an affine head, and samples to score."""

import torch

CLASSES, WIDTH = 4, 7


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make(n=90, seed=0, classes=CLASSES, width=WIDTH, bias=True, dtype=torch.float64):
    """Return features, logits, labels, weight and bias of clusters far from the origin; class 2 has no sample."""
    g = generator(seed)
    means = 2 * torch.randn(classes, width, generator=generator(99), dtype=dtype) + 3
    labels = torch.randint(classes, (n,), generator=g)
    labels[labels == 2] = 0
    features = means[labels] + torch.randn(n, width, generator=g, dtype=dtype)
    weight = torch.randn(classes, width, generator=generator(98), dtype=dtype)
    offset = torch.randn(classes, generator=generator(97), dtype=dtype) if bias else None
    logits = features @ weight.T + (offset if bias else 0) + 8
    return features, logits, labels, weight, offset


def fitted(score, **arguments):
    """Return the score, fitted on ``make(**arguments)``."""
    return score.fit(*make(**arguments))


def queries(dtype=torch.float64, **arguments):
    """Return features and logits of 30 samples to score."""
    return make(n=30, seed=5, dtype=dtype, **arguments)[:2]
