"""How useful frozen features are for classes or images that the model was not trained on.

Accuracies of classifiers on frozen features: nearest class mean and imprinted weights with one and five shots, nearest
neighbors, a ridge and a logistic probe. Labels may be any integers: the classes are those of the training part.
Collapsed features tend to score worse here, which is why the report also holds the collapse of the target set.
"""

from __future__ import annotations

from torch import Tensor

from nc_tools.metrics.checks import checked_sets
from nc_tools.metrics.collapse.neural_collapse import neural_collapse
from nc_tools.metrics.transfer.few_shot import imprint_accuracy, nearest_class_mean
from nc_tools.metrics.transfer.knn_accuracy import knn_accuracy
from nc_tools.metrics.transfer.probe import linear_probe, ridge_probe
from nc_tools.seeds import stream

# Measures of the target set's collapse, by which checkpoints and layers are ranked.
TARGET_COLLAPSE = ("nc1_pinv", "nc1_trace", "cdnv")


def transfer_report(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    seed: int,
) -> dict[str, float]:
    """Return the accuracies of simple classifiers on the frozen features of a target set, and their collapse.

    Args:
        train_features: Frozen features of the target's training part (N, D).
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        seed: Seed of the hold-out part and of the 20 draws of shots; use the same for all models that you compare.

    Returns:
        probe/accuracy, ridge/accuracy, knn/accuracy; ncc_1/accuracy, ncc_5/accuracy, imprint_1/accuracy and
        imprint_5/accuracy with the half-width of their 95 % interval over draws as ``.../interval``; and nc1_pinv,
        nc1_trace and cdnv of the target's training part, if they are defined.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label is not in the training part.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> report = transfer_report(x, y, x, y, seed=0)
        >>> [key for key in report if key.endswith("accuracy")][:3]
        ['probe/accuracy', 'ridge/accuracy', 'knn/accuracy']
    """
    sets = (train_features, train_labels, test_features, test_labels)
    x, y, *_ = checked_sets(*sets)
    collapse = neural_collapse(x, y)
    report = {
        "probe/accuracy": linear_probe(*sets, stream(seed, "transfer", 0)),
        "ridge/accuracy": ridge_probe(*sets),
        "knn/accuracy": knn_accuracy(*sets),
    }
    for name, few_shot in (("ncc", nearest_class_mean), ("imprint", imprint_accuracy)):
        for shots in (1, 5):
            accuracy, interval = few_shot(*sets, shots=shots, draws=20, generator=stream(seed, "transfer", shots))
            report |= {f"{name}_{shots}/accuracy": accuracy, f"{name}_{shots}/interval": interval}
    return report | {key: collapse[key] for key in TARGET_COLLAPSE if key in collapse}
