"""The accuracy of a nearest-neighbor classifier on frozen features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_sets

# Cosines between one block of test samples and all training samples: 128 MB.
_KNN_ENTRIES = 1 << 24


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Return the accuracy of the k nearest neighbors by cosine, each voting with weight exp(cos / T).

    Nothing is fitted. If there are fewer than k training samples, all of them vote. Cosines are computed in float64:
    far from the origin all features have nearly the same direction, and float32 would choose neighbors at random.

    Source: Wu, Xiong, Yu and Lin (2018), with k = 200; here 20, as in later self-supervised work.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        k: Number of neighbors.
        temperature: T.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If k or T is not positive, shapes do not fit, features are not finite, or a test label is
            not in the training part.

    Example:
        >>> import torch
        >>> knn_accuracy(torch.eye(2), torch.tensor([3, 8]), torch.eye(2) + 0.1, torch.tensor([3, 8]))
        1.0
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature must be positive, got {k} and {temperature}")
    x, y, queries, answers, num_classes = checked_sets(train_features, train_labels, test_features, test_labels)
    correct = 0
    with measuring_precision(x.device):
        x = F.normalize(x.double(), dim=1)
        step = max(1, _KNN_ENTRIES // len(x))
        for start in range(0, len(queries), step):
            cosine = F.normalize(queries[start : start + step].double(), dim=1) @ x.T
            nearest, index = cosine.topk(min(k, len(x)), dim=1)
            votes = ((nearest - nearest[:, :1]) / temperature).exp()
            scores = votes.new_zeros(len(votes), num_classes).scatter_add_(1, y[index], votes)
            correct += int((scores.argmax(dim=1) == answers[start : start + step]).sum())
    return correct / len(queries)
