"""Samples of classes with a head, and slow forms of what the collapse measures compute."""

import math

import torch


def draw_classes(seed, n=60, d=6, k=4, spread=1.0):
    """Return features in float64 of K classes with at least two samples each, labels, and a random weight."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.arange(k), torch.randint(0, k, (n - 2 * k,), generator=generator)])
    means = torch.randn(k, d, generator=generator) + 0.5
    x = means[y] + spread * torch.randn(n, d, generator=generator)
    return x.double(), y, torch.randn(k, d, generator=generator).double()


def draw_classes_with_head(seed, n, d, k, spread=1.0):
    """Return features in float32 of K classes, labels, and a random weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(k), torch.randint(0, k, (n - k,), generator=generator)])
    means = torch.randn(k, d, generator=generator)
    x = means[y] + spread * torch.randn(n, d, generator=generator)
    return x, y, torch.randn(k, d, generator=generator), torch.randn(k, generator=generator)


def draw_balanced():
    """Return float32 features of four classes with ten samples each."""
    x, *_ = draw_classes_with_head(3, 40, 6, 4)
    return x, torch.arange(4).repeat(10)


def simplex(k, d):
    """Return a simplex frame (K, D) in a random rotation, float64."""
    frame = torch.eye(k, dtype=torch.float64) - 1 / k
    rotation, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))
    return frame @ rotation[:k] * math.sqrt(k / (k - 1))


def means_of(x, y):
    """Return the class means (K, D)."""
    return torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)])


def cosine(a, b):
    """Return the cosine of two lists of numbers."""
    return float(sum(p * q for p, q in zip(a, b, strict=True))) / math.sqrt(
        float(sum(p * p for p in a)) * float(sum(q * q for q in b))
    )


def relative_deviation(values):
    """Return the population's standard deviation over the absolute mean."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / abs(mean)
