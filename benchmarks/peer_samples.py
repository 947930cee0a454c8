"""The samples that ``benchmarks/peers.py`` measures, and plain references in float64 for its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """Training features and labels, features inside and outside, and an affine head; all float32."""

    train: Tensor
    labels: Tensor
    inside: Tensor
    outside: Tensor
    head: nn.Linear

    def logits(self, features: Tensor) -> Tensor:
        """Return the head's logits of features."""
        with torch.no_grad():
            return self.head(features)


def fitted_head(train: Tensor, labels: Tensor) -> nn.Linear:
    """Return a head fitted by least squares to eight times the one-hot labels."""
    classes = int(labels.max()) + 1
    head = nn.Linear(train.shape[1], classes)
    targets = 8 * nn.functional.one_hot(labels, classes).double()
    rows = torch.cat([train.double(), torch.ones(len(train), 1, dtype=torch.float64)], dim=1)
    solved = torch.linalg.lstsq(rows, targets, driver="gelsd").solution.float()
    with torch.no_grad():
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
    return head.eval()


def normal_classes(count: int = 3000, width: int = 64, classes: int = 10) -> Sample:
    """Normal classes with deviations from .2 to 1.5; outliers have no class mean."""
    generator = torch.Generator().manual_seed(0)
    means, spread = 0.3 * torch.randn(classes, width, generator=generator), torch.linspace(0.2, 1.5, width)
    labels = torch.arange(count) % classes
    parts = (labels, labels[:600])
    train, inside = (means[y] + spread * torch.randn(len(y), width, generator=generator) for y in parts)
    outside = (0.9 * spread + 0.1) * torch.randn(600, width, generator=generator)
    return Sample(train, labels, inside, outside, fitted_head(train, labels))


def uneven_directions(count: int = 3000, width: int = 128, classes: int = 10) -> Sample:
    """Classes far apart whose samples have deviations .01, .005, ..., .01/D; outliers spread more in half of them."""
    generator = torch.Generator().manual_seed(0)
    means, spread = torch.randn(classes, width, generator=generator), 0.01 / torch.arange(1, width + 1)
    labels = torch.arange(count) % classes
    parts = (labels, labels[:600], labels[:600])
    train, inside, outside = (means[y] + spread * torch.randn(len(y), width, generator=generator) for y in parts)
    means = means[labels[:600]]
    outside[:, width // 2 :] = means[:, width // 2 :] + 1.15 * (outside - means)[:, width // 2 :]
    return Sample(train, labels, inside, outside, fitted_head(train, labels))


def digits() -> Sample:
    """Features (D = 512) of a network trained on scikit-learn's digits 0 to 7; the outliers are the digits 8 and 9."""
    data = load_digits()
    x, y = torch.from_numpy(data.data).float() / 16, torch.from_numpy(data.target)
    known = y < 8
    order = torch.randperm(int(known.sum()), generator=torch.Generator().manual_seed(0))
    inside, labels = x[known][order], y[known][order]
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()), nn.Linear(512, 8)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-3)
    for _ in range(60):
        for batch in torch.randperm(1000).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(body(inside[batch])), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        features, outside = body(inside), body(x[~known])
    return Sample(features[:1000], labels[:1000], features[1000:], outside, head.eval())


SAMPLES = {"normal classes": normal_classes, "uneven directions": uneven_directions, "digits": digits}


def reference_scores(sample: Sample) -> dict[str, np.ndarray]:
    """Return each score of inside and outside samples, by its definition in float64 NumPy."""
    x, y = sample.train.double().numpy(), sample.labels.numpy()
    both = torch.cat([sample.inside, sample.outside]).double().numpy()
    w, b = (part.detach().double().numpy() for part in (sample.head.weight, sample.head.bias))
    z = both @ w.T + b
    top = z.max(1)
    classes = np.arange(len(w))
    means = np.stack([x[y == k].mean(0) for k in classes])
    center, decided = x.mean(0), z.argmax(1)
    lse = top + np.log(np.exp(z - top[:, None]).sum(1))
    p = np.exp(z - lse[:, None])
    rest = np.stack([np.delete(p, k, 1).sum(1) for k in classes], 1)  # 1 - p_k without cancellation
    residuals = x - means[y]
    to_classes = np.stack([lengths(residuals, both - mean) for mean in means], 1).min(1)
    to_all = lengths(x - center, both - center)
    unit, train_unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (both, x))
    kth = np.array([np.sort(np.linalg.norm(row - train_unit, axis=1))[49] for row in unit])
    gaps = np.linalg.norm(w[decided][:, None] - w, axis=2)
    np.put_along_axis(gaps, decided[:, None], 1, 1)
    away = np.linalg.norm(both - center, axis=1)
    origin = -np.linalg.pinv(w, rcond=1e-6) @ b
    right = np.linalg.svd(x - origin, full_matrices=True)[2][x.shape[1] // 2 :]
    virtual = np.linalg.norm((both - origin) @ right.T, axis=1)
    train_virtual = np.linalg.norm((x - origin) @ right.T, axis=1).mean()
    scale = (x @ w.T + b).max(1).mean() / train_virtual
    aligned = (w[decided] * (both - center)).sum(1) / away
    return {
        "msp": np.log(p.max(1)) - np.log(np.take_along_axis(rest, decided[:, None], 1)[:, 0]),
        "max_logit": top,
        "energy": lse,
        "gen": -((p * rest) ** 0.1).sum(1),
        "knn": -kth,
        "mahalanobis": -to_classes,
        "rmds": to_all - to_classes,
        "vim": lse - scale * virtual,
        "nci": aligned + 1e-4 * np.abs(both).sum(1),
        "fdbd": ((top[:, None] - z) / gaps).sum(1) / (len(w) - 1) / away,
    }


def lengths(rows: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Return squared Mahalanobis lengths for the covariance of rows, from singular values of the rows themselves."""
    scale = rows.std(0)
    scale[scale == 0] = 1
    _, singular, right = np.linalg.svd(rows / scale, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    return len(rows) * ((about / scale @ right[kept].T / singular[kept]) ** 2).sum(1)
