"""How useful frozen features are for classes or images that the model was not trained on.

Accuracies of readers of increasing effort: nearest center and imprinted weights of one and of five shots, nearest
neighbors, a ridge and a logistic probe. Labels may be any integers: classes are those of the training part. Collapsed
features tend to score worse here, which is what one gives up for collapse, and why these stand in the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.heads.imprint import imprint
from nc_tools.metrics.checks import checked_sets
from nc_tools.metrics.collapse.neural_collapse import neural_collapse
from nc_tools.metrics.transfer.probe import linear_probe, ridge_probe
from nc_tools.seeds import stream

# Similarities of one block of queries to the bank: 64 MB.
_KNN_ENTRIES = 1 << 24
# Measures of the target set's collapse that rank checkpoints and layers.
TARGET_COLLAPSE = ("nc1_pinv", "nc1_trace", "cdnv")


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Return the accuracy of nearest neighbors by cosine, each voting with weight exp(cos / T).

    Nothing is fitted, so it reads the features as they are. With fewer than k training samples all of them vote.

    Source: Wu, Xiong, Yu and Lin (2018), with k = 200; here 20, as in later self-supervised work.

    Args:
        train_features: The bank (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the bank.
        k: Neighbors.
        temperature: T.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If k or T is not positive, shapes do not fit, features are not finite, or a test label is
            not in the bank.

    Example:
        >>> knn_accuracy(torch.eye(2), torch.tensor([3, 8]), torch.eye(2) + 0.1, torch.tensor([3, 8]))
        1.0
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature must be positive, got {k} and {temperature}")
    bank, y, queries, answers, number = checked_sets(train_features, train_labels, test_features, test_labels)
    right = 0
    with measuring_precision(bank.device):
        bank = F.normalize(bank, dim=1)
        step = max(1, _KNN_ENTRIES // len(bank))
        for start in range(0, len(queries), step):
            cosine = F.normalize(queries[start : start + step], dim=1) @ bank.T
            nearest, index = cosine.topk(min(k, len(bank)), dim=1)
            votes = ((nearest - nearest[:, :1]) / temperature).exp()
            scores = votes.new_zeros(len(votes), number).scatter_add_(1, y[index], votes)
            right += int((scores.argmax(dim=1) == answers[start : start + step]).sum())
    return right / len(queries)


def nearest_class_mean(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Return the accuracy of the nearest mean of ``shots`` samples per class, over draws of the shots.

    Few-shot accuracy with nothing to tune; the interval is over which samples were drawn, with the test set
    fixed. The distance is Euclidean, on features as they are. A class with fewer samples gives all it has.

    Source: Snell, Swersky and Zemel (2017); Galanti, Gyorgy and Hutter (2021) relate it to CDNV.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        shots: Samples of each class that make its center; a class with fewer gives all it has.
        draws: How often they are drawn.
        generator: Draws them.

    Returns:
        Mean accuracy and the half-width of its 95 % t interval (0 with a single draw, which tells none).

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shots or draws are below 1, shapes do not fit, features are not finite, or a test label
            was not seen in training.

    Example:
        >>> x, y = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 0, 1, 1])
        >>> nearest_class_mean(x, y, x, y, shots=1, draws=5, generator=torch.Generator().manual_seed(0))
        (1.0, 0.0)
    """
    x, y, queries, answers, number = checked_sets(train_features, train_labels, test_features, test_labels)
    with measuring_precision(x.device):
        # A common origin changes no distance and keeps the products below from canceling.
        origin = x.mean(dim=0)
        x, queries = x - origin, queries - origin

        def right(rows: Tensor, weight: Tensor) -> Tensor:
            centers = torch.einsum("ks,ksd->kd", weight.to(x.dtype), x[rows])
            scores = queries @ centers.T - centers.square().sum(dim=1) / 2
            return scores.argmax(dim=1) == answers

        return _over_draws(y, number, shots, draws, generator, right)


def imprint_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Return the accuracy of weights imprinted from ``shots`` samples per class, over draws of the shots.

    The nearest class center with the cosine: the classifier of :func:`~nc_tools.heads.imprint` with one proxy, whose
    class vectors are the means of unit features. Where this beats :func:`nearest_class_mean`, norms are in the way.
    The same generator draws the same shots for both.

    Source: Qi, Brown and Lowe (2018).

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        shots: Samples of each class that make its vector; a class with fewer gives all it has.
        draws: How often they are drawn.
        generator: Draws them.

    Returns:
        Mean accuracy and the half-width of its 95 % t interval (0 with a single draw, which tells none).

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shots or draws are below 1, shapes do not fit, features are not finite, or a test label
            was not seen in training.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.1], [9.0, 0.0], [0.0, 2.0], [0.1, 5.0]]), torch.tensor([0, 0, 1, 1])
        >>> imprint_accuracy(x, y, x, y, shots=1, draws=5, generator=torch.Generator().manual_seed(0))
        (1.0, 0.0)
    """
    x, y, queries, answers, number = checked_sets(train_features, train_labels, test_features, test_labels)

    def right(rows: Tensor, weight: Tensor) -> Tensor:
        taken = weight > 0
        head = imprint(x[rows[taken]], y[rows[taken]], number, scale=1.0)
        scores: Tensor = head(queries)
        return scores.argmax(dim=1) == answers

    with measuring_precision(x.device):
        return _over_draws(y, number, shots, draws, generator, right)


def _over_draws(
    labels: Tensor,
    num_classes: int,
    shots: int,
    draws: int,
    generator: torch.Generator,
    right: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Average what ``right`` says of each draw: of rows (K, S) and their weights, the share each has in its class."""
    if not (isinstance(shots, int) and isinstance(draws, int) and shots >= 1 and draws >= 1):
        raise ValueError(f"shots and draws must be whole numbers, at least 1, got {shots} and {draws}")
    counts = labels.bincount(minlength=num_classes)
    first = counts.cumsum(0) - counts
    slots = torch.arange(min(shots, int(counts.max())), device=labels.device)
    weight = (slots < counts[:, None]).float() / counts.clamp(max=shots)[:, None]
    slots = slots.minimum(counts[:, None] - 1)
    accuracies = []
    for _ in range(draws):
        key = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=generator.device)
        chosen = (labels + key.to(labels.device)).argsort()[first[:, None] + slots]
        accuracies.append(right(chosen, weight).double().mean())
    values = torch.stack(accuracies).cpu()
    return float(values.mean()), _half_width(values)


def _half_width(values: Tensor) -> float:
    from scipy.special import stdtrit  # late, and not scipy.stats, which takes half a second

    if len(values) < 2:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.975)) * float(values.std()) / math.sqrt(len(values))


def transfer_report(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    seed: int,
) -> dict[str, float]:
    """Return all readers' accuracies on one target set, and how collapsed its training part is.

    Args:
        train_features: (N, D) frozen features of the target's training part.
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        seed: Of the hold-out and of 20 draws of shots; the same for all models that are compared.

    Returns:
        probe/accuracy, ridge/accuracy, knn/accuracy; ncc_1/accuracy, ncc_5/accuracy, imprint_1/accuracy and
        imprint_5/accuracy with the half-width of their 95 % interval over draws as ``.../interval``; and nc1_pinv,
        nc1_trace and cdnv of the target's training part where they are defined.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label was not seen in training.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> report = transfer_report(x, y, x, y, seed=0)
        >>> [key for key in report if key.endswith("accuracy")][:3]
        ['probe/accuracy', 'ridge/accuracy', 'knn/accuracy']
    """
    sets = (train_features, train_labels, test_features, test_labels)
    bank, place, *_ = checked_sets(*sets)
    target = neural_collapse(bank, place)
    report = {
        "probe/accuracy": linear_probe(*sets, stream(seed, "transfer", 0)),
        "ridge/accuracy": ridge_probe(*sets),
        "knn/accuracy": knn_accuracy(*sets),
    }
    for name, reader in (("ncc", nearest_class_mean), ("imprint", imprint_accuracy)):
        for shots in (1, 5):
            told = reader(*sets, shots=shots, draws=20, generator=stream(seed, "transfer", shots))
            report[f"{name}_{shots}/accuracy"], report[f"{name}_{shots}/interval"] = told
    return report | {key: target[key] for key in TARGET_COLLAPSE if key in target}
