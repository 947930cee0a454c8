"""Cross-entropy, with label smoothing that is the same for all classes or larger for larger classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from nc_tools.losses._class_counts import check_width, checked_counts
from nc_tools.losses._one_softmax import of_nll
from nc_tools.losses._rows import Reduction, RowReduction, cross_entropy, expected_loss, rows_of
from nc_tools.losses.logit_loss import LogitLoss


@dataclass(frozen=True)
class ClassWiseSmoothing:
    """Label smoothing that is larger for larger classes.

    eps_k = tail + (head - tail) f(x_k), x_k = (n_k - n_min) / (n_max - n_min), with f(x) = x ("linear"), sin(pi x / 2)
    ("concave") or 1 - cos(pi x / 2) ("convex"). A network is most confident on the classes with the most samples, and
    smoothing lowers confidence. Source: Zhong et al. 2021 (MiSLAS, label-aware smoothing), who divide eps among the
    K - 1 other classes. This divides it among all K, like uniform smoothing and their code. If all classes have the
    same size, all take ``head``.

    Attributes:
        head: eps of the largest class, in [0, 1).
        tail: eps of the smallest class, from 0 to ``head``.
        shape: f.

    Raises:
        ValueError: If not 0 <= tail <= head < 1, or the shape is unknown.

    Example:
        >>> ClassWiseSmoothing(0.4, 0.1, "linear").strengths([100, 50, 0]).tolist()
        [0.4000000059604645, 0.25, 0.10000000149011612]
    """

    head: float = 0.3
    tail: float = 0.0
    shape: Literal["linear", "concave", "convex"] = "concave"

    def __post_init__(self) -> None:
        if not 0 <= self.tail <= self.head < 1:
            raise ValueError(
                f"head and tail must satisfy 0 <= tail <= head < 1, got head={self.head}, tail={self.tail}"
            )
        if self.shape not in ("linear", "concave", "convex"):
            raise ValueError(f"shape must be 'linear', 'concave' or 'convex', got {self.shape!r}")

    def strengths(self, class_counts: Tensor | Sequence[int]) -> Tensor:
        """Return the smoothing of each class, float32 (K,)."""
        counts = checked_counts(class_counts)
        spread = counts.max() - counts.min()
        equal = spread == 0
        x = torch.where(equal, torch.ones_like(counts), (counts - counts.min()) / (spread + equal))
        quarter = math.pi / 2 * x
        f = {"linear": x, "concave": quarter.sin(), "convex": 1 - quarter.cos()}[self.shape]
        return (self.tail + (self.head - self.tail) * f).to(torch.float32)


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float | Tensor = 0.0, reduction: Reduction = "none"
) -> Tensor:
    """Return the cross-entropy with smoothed labels, for each sample or reduced. See :class:`CrossEntropyLoss`.

    Args:
        logits: (N, K).
        labels: Class indices (N,).
        smoothing: One strength for all classes, or one for each class (K,).
        reduction: "none", "mean" or "sum".

    Returns:
        (N,), or a scalar: -(1 - eps_y) log p_y - (eps_y / K) sum_k log p_k.

    Raises:
        TypeError: If the labels are not class indices.
        ValueError: If the shapes do not fit.

    Example:
        >>> z, y = torch.zeros(1, 4), torch.tensor([2])
        >>> smoothed_cross_entropy(z, y, torch.full((4,), 0.1))
        tensor([1.3863])
    """
    return rows_of(logits, labels).apply(lambda z, y, r: _smoothed(z, y, smoothing, r), reduction)


def _smoothed(z: Tensor, labels: Tensor, smoothing: float | Tensor, reduction: RowReduction) -> Tensor:
    if isinstance(smoothing, Tensor):
        check_width(smoothing, z)
        strength: float | Tensor = smoothing.to(z.dtype).index_select(0, labels).unsqueeze(1)
    elif smoothing == 0:
        return cross_entropy(z, labels, reduction)
    else:
        strength = smoothing
    return of_nll(z, labels, partial(_smoothing_formula, strength), reduction, arity=2)


def _smoothing_formula(strength: float | Tensor, nll: Tensor, margin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # -sum_k log p_k = K (nll + margin)
    slope = torch.ones_like(nll)
    return nll + strength * margin, slope, strength * slope


class CrossEntropyLoss(LogitLoss):
    """Softmax cross-entropy: -sum_k t_k log p_k, with t the one-hot label, or a smoothed label.

    Label smoothing mixes the label with the uniform distribution, t = (1 - eps) onehot + eps / K (Szegedy et al. 2016,
    section 7). It also speeds up collapse, and its optimum has finite norms. Class-wise smoothing takes a different eps
    for each class, by the class's size.

    Args:
        label_smoothing: eps, from 0 to below 1 (.05 to .1 are usual), or a :class:`ClassWiseSmoothing`.
        class_counts: Training samples of each class (K,), for class-wise smoothing. A run fills it in.

    Raises:
        ValueError: If ``label_smoothing`` is outside [0, 1), or class-wise without class counts.

    Example:
        >>> CrossEntropyLoss(label_smoothing=0.1)(torch.zeros(2, 4), torch.tensor([0, 2]))  # log 4
        tensor(1.3863)
    """

    strengths: Tensor | None

    def __init__(
        self,
        label_smoothing: float | ClassWiseSmoothing = 0.0,
        class_counts: Tensor | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        strengths = None
        if isinstance(label_smoothing, ClassWiseSmoothing):
            if class_counts is None:
                raise ValueError(
                    "class-wise smoothing needs class_counts, got None: pass the training samples of each class"
                )
            strengths = label_smoothing.strengths(class_counts)
        elif not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.keep_buffer("strengths", strengths, persistent=False)

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each sample (N,)."""
        return self._cross_entropy(logits, labels, "none")

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch."""
        if self.label_smoothing == 0:  # saves a call in most training steps
            return cross_entropy(logits, labels, "mean")
        return self._cross_entropy(logits, labels, "mean")

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each sample (N,) to its probabilities, which are smoothed like labels.

        With class-wise smoothing a sample has the mean strength of its classes.
        """
        smoothing = self.label_smoothing
        log_p = logits.log_softmax(1)
        fit = expected_loss(log_p, targets)
        if smoothing == 0:
            return fit
        strength: float | Tensor
        if isinstance(smoothing, ClassWiseSmoothing):
            strength = targets @ cast(Tensor, self.strengths).to(targets.dtype)
        else:
            strength = smoothing
        return (1 - strength) * fit - strength * log_p.mean(1)

    def _cross_entropy(self, logits: Tensor, labels: Tensor, reduction: RowReduction) -> Tensor:
        smoothing = self.label_smoothing
        if isinstance(smoothing, ClassWiseSmoothing):
            return _smoothed(logits, labels, cast(Tensor, self.strengths), reduction)
        if smoothing == 0:
            return cross_entropy(logits, labels, reduction)
        return _smoothed(logits, labels, smoothing, reduction)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"label_smoothing={self.label_smoothing}"
