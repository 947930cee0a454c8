"""Dilation: how much the classes of test features spread because a model memorized wrong labels."""

from __future__ import annotations

from torch import Tensor

from nc_tools.metrics.collapse.neural_collapse import neural_collapse


def dilation(
    features: Tensor, true_labels: Tensor, num_classes: int | None = None, *, reference: Tensor | None = None
) -> dict[str, float]:
    """Measure dilation: how much the test features of each true class are spread.

    A network that memorizes wrong labels must spread the samples of a true class over several labels, and the features
    of test samples spread with them. With S_W and S_B class-averaged as in ``neural_collapse``,

        dilation         tr(S_W) / tr(S_B) of the test features
        dilation_ratio   dilation divided by that of a network trained without noise, if its features are given

    Source: Nguyen et al. (2023), section 3; the ratio is ours. ``memorization`` measures the training set. For
    reporting only: it reads true labels, so do not choose anything by it.

    Args:
        features: Test features (N, D).
        true_labels: (N,).
        num_classes: K; by default the largest label plus one.
        reference: Features (N, D') of the same images from a network trained on clean labels.

    Returns:
        The quantities by name; no key if all class means are equal or no class has two samples.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: As ``neural_collapse``.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> round(dilation(x, torch.tensor([0, 0, 1, 1]))["dilation"], 6)
        0.25
    """
    collapse = neural_collapse(features, true_labels, num_classes=num_classes)
    values = {"dilation": collapse["nc1_trace"]} if "nc1_trace" in collapse else {}
    if reference is not None and values:
        clean = neural_collapse(reference, true_labels, num_classes=num_classes)
        if clean.get("nc1_trace", 0.0) > 0:
            values["dilation_ratio"] = values["dilation"] / clean["nc1_trace"]
    return values
