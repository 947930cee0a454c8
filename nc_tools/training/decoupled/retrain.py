"""Second stages that train: the classifier from new initial weights, or one factor per class vector."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.heads.linear import LinearHead
from nc_tools.heads.scale import Scale
from nc_tools.training.decoupled.stage import RetrainingStage
from nc_tools.training.train_config import OptimConfig


@dataclass(frozen=True, kw_only=True)
class RetrainClassifier(RetrainingStage):
    """Classifier re-training (cRT): train the head from new initial weights on class-balanced batches, features frozen.

    Source: Kang et al. (2020, section 4.2). Differences: the number of epochs is a share of the first stage's, and the
    optimizer and schedule are those of the first stage. A head with a fixed frame keeps it and learns a new projection.
    """

    def check(self, head: Head) -> None:
        """Check that the head has learned weights; otherwise raise ValueError.

        Raises:
            ValueError: If it has none.
        """
        if not any(p.ndim >= 2 for p in head.parameters()):
            raise ValueError(
                f"classifier re-training needs a head with learned weights, but this {type(head).__name__} has fixed "
                f"class vectors and no projection. Set projection=True, or use a LinearHead or a CosineHead"
            )

    def head_to_train(self, head: Head, fresh: Head) -> Head:  # noqa: ARG002
        """Return the head with new initial weights, ``fresh``."""
        return fresh

    @torch.no_grad()
    def fold(self, trained: Head, head: Head) -> None:
        """Copy the retrained weights into the model's head."""
        head.load_state_dict(trained.state_dict())


@dataclass(frozen=True, kw_only=True)
class LearnableWeightScaling(RetrainingStage):
    """Learnable weight scaling (LWS): learn one factor per class on class-balanced batches, all else frozen.

        z_k = f_k (w_k . h + b_k),    f_k = 1 at the start

    It learns K numbers instead of K (D + 1). The directions of the class vectors stay; their norms are learned instead
    of set by a tau. Source: Kang et al. (2020, eq. 5); the bias is scaled with its row, as in their code. If the head
    has unit class vectors and one scale per class, those scales are the factors, and training continues from their
    present values. Factors never decay.
    """

    def check(self, head: Head) -> None:
        """Check that the head can learn a norm or a scale for each class vector; otherwise raise ValueError.

        Raises:
            ValueError: If it is neither a ``LinearHead`` nor a head with one learned scale per class.
        """
        if not isinstance(head, LinearHead) and _class_scales(head) is None:
            raise ValueError(
                f"weight scaling learns one factor per class vector, but the class vectors of {type(head).__name__} "
                f"all have one norm and one scale. Set scale=LEARNED_PER_CLASS, or use a LinearHead"
            )

    def optim(self, first: OptimConfig) -> OptimConfig:
        """Return the optimizer settings without weight decay, which would shrink all factors."""
        return replace(super().optim(first), decay_norm_and_bias=False)

    def head_to_train(self, head: Head, fresh: Head) -> Head:  # noqa: ARG002
        """Return a head to train in which only one factor per class is learned."""
        if isinstance(head, LinearHead):
            return _ScaledRows(head)
        copied = copy.deepcopy(head).requires_grad_(requires_grad=False)
        scales = _class_scales(copied)
        assert scales is not None  # noqa: S101 (check() has ensured it)
        scales.requires_grad_(True)
        return copied

    @torch.no_grad()
    def fold(self, trained: Head, head: Head) -> None:
        """Multiply the head's class vectors and biases by the learned factors, or copy the learned scales."""
        if not isinstance(trained, _ScaledRows):
            head.load_state_dict(trained.state_dict())
            return
        head.weight.copy_(trained.factor[:, None] * trained.rows)
        if head.bias is not None and trained.bias_rows is not None:
            head.bias.copy_(trained.factor * trained.bias_rows)


def _class_scales(head: Head) -> nn.Parameter | None:
    """Return the scales (K,) of a head that learns one per class, else None."""
    owner = getattr(head, "scale_of", None)
    learned = isinstance(owner, Scale) and owner.per_class
    return owner.raw if learned and isinstance(owner, Scale) else None


class _ScaledRows(Head):
    """A linear head with constant rows and one learned factor per row.

    Args:
        head: Its weight and bias are copied.
    """

    rows: Tensor
    bias_rows: Tensor | None
    bias = None
    scale = 1.0

    def __init__(self, head: LinearHead) -> None:
        super().__init__(head.feature_dim, head.num_classes)
        self.register_buffer("rows", head.weight.detach().clone())
        self.register_buffer("bias_rows", None if head.bias is None else head.bias.detach().clone())
        self.factor = nn.Parameter(torch.ones_like(self.rows[:, 0]))

    @property
    def weight(self) -> Tensor:
        """Class vectors times their learned factors (K, D)."""
        return self.factor[:, None] * self.rows

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits of the constant rows times the factors: z_k = f_k * (w_k . h + b_k)."""
        bias = None if self.bias_rows is None else self.bias_rows.to(embedded.dtype)
        return self.factor * nn.functional.linear(embedded, self.rows.to(embedded.dtype), bias)
