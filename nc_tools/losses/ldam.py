"""Label-distribution-aware margins (LDAM) for class imbalance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.losses._class_affine import ClassAffineCrossEntropyLoss
from nc_tools.losses._class_counts import checked_counts


def ldam_margins(class_counts: Tensor | Sequence[int], max_margin: float = 0.5) -> Tensor:
    """Return the margins m_k = max_margin n_k^(-1/4) / max_j n_j^(-1/4), float32 (K,), largest for the rarest class.

    A class without samples has the largest margin too, which has no effect.

    Args:
        class_counts: Training samples of each class (K,).
        max_margin: The rarest class's margin.

    Raises:
        ValueError: If the largest margin is negative or not finite, a count is negative or all are 0.

    Example:
        >>> ldam_margins([16, 1]).tolist()
        [0.25, 0.5]
    """
    if not (math.isfinite(max_margin) and max_margin >= 0):
        raise ValueError(f"max_margin must be finite and not negative, got {max_margin}")
    counts = checked_counts(class_counts)
    rarest = counts[counts > 0].min()
    return (max_margin * (counts / rarest).clamp(min=1).pow(-0.25)).to(torch.float32)


class LDAMLoss(ClassAffineCrossEntropyLoss):
    """LDAM: cross-entropy with a margin on the label's class, which is larger for rarer classes.

    With cosines c: -log(e^{s (c_y - m_y)} / (e^{s (c_y - m_y)} + sum_{j != y} e^{s c_j})),
    m_k = max_margin n_k^(-1/4) / max_j n_j^(-1/4). Margins proportional to n_k^(-1/4) minimize a bound on the balanced
    error (Cao et al. 2019, section 3). The loss is usually combined with
    :class:`~nc_tools.losses.DeferredReweightingLoss` (LDAM-DRW).

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it multiplies the margin by the head's scale.
    The margin is in units of the cosine, and s is the head's own scale, so that training and evaluation use the same
    logits; the paper's s = 30 is ``CosineHead(scale=30.0)``. With a head that normalizes and has a scale (cosine, fixed
    frame) this is the published loss. With a linear head it is the same formula with s = 1 and w_y . h in place of the
    cosine: a small margin in units of the logits, whose effect fades as the norms grow.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.
        max_margin: The rarest class's margin. 0 is cross-entropy.

    Raises:
        ValueError: If the largest margin is negative or not finite, a count is negative or all are 0.

    Example:
        >>> from nc_tools.specs import spec
        >>> spec(LDAMLoss, max_margin=0.4).build({"class_counts": [90, 10]})
        LDAMLoss(max_margin=0.4)
    """

    def __init__(self, class_counts: Tensor | Sequence[int], max_margin: float = 0.5) -> None:
        super().__init__(margin=ldam_margins(class_counts, max_margin))
        self.max_margin = max_margin

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"max_margin={self.max_margin}"
