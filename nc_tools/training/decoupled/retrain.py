"""Second stages that train: a classifier drawn anew, or a scale for each class vector."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.heads.linear import LinearHead
from nc_tools.heads.scale import Scale
from nc_tools.training.decoupled.stage import RetrainedStage
from nc_tools.training.train_config import OptimConfig


@dataclass(frozen=True, kw_only=True)
class ReTrainClassifier(RetrainedStage):
    """Classifier re-training (cRT): the head is drawn anew and trained on class-balanced batches, features frozen.

    Source: Kang et al. (2020, section 4.2). Differences: the stage's length is a share of the first one's, and it keeps
    that one's optimizer and schedule. A head with a fixed frame keeps its frame and learns its projection anew.
    """

    def check(self, head: Head) -> None:
        """Refuse a head without a learned map.

        Raises:
            ValueError: If the head has no learned weights to draw anew.
        """
        if not any(p.ndim >= 2 for p in head.parameters()):
            raise ValueError(
                f"classifier re-training draws a head's learned weights anew, but {type(head).__name__} has none here "
                f"(its class vectors are fixed): give it projection=True, or take a LinearHead or CosineHead"
            )

    def start(self, head: Head, fresh: Head) -> Head:  # noqa: ARG002
        """Return the head drawn anew."""
        return fresh

    @torch.no_grad()
    def fold(self, trained: Head, head: Head) -> None:
        """Take over all that was learned."""
        head.load_state_dict(trained.state_dict())


@dataclass(frozen=True, kw_only=True)
class LearnableWeightScaling(RetrainedStage):
    """Learnable weight scaling (LWS): one factor for each class, learned on class-balanced batches, all else frozen.

        z_k = f_k (w_k . h + b_k),    f_k = 1 at the start

    K numbers instead of K (D + 1): directions stay, norms are set by the data instead of by a tau. Source: Kang et al.
    (2020, eq. 5); the bias is scaled with its row, as in their code. Over a head with unit vectors and a scale for each
    class, those scales are the factors, and start from where the first stage left them. Factors never decay.
    """

    def check(self, head: Head) -> None:
        """Refuse a head whose rows have no lengths of their own.

        Raises:
            ValueError: If it is neither a ``LinearHead`` nor a head with a learned scale for each class.
        """
        if not isinstance(head, LinearHead) and _class_scales(head) is None:
            raise ValueError(
                f"weight scaling learns a factor for each class vector, but those of {type(head).__name__} share one "
                f"length and one scale: give it scale=LEARNED_PER_CLASS, or take a LinearHead"
            )

    def optim(self, first: OptimConfig) -> OptimConfig:
        """Return the optimizer without decay: on a factor it would be a temperature schedule."""
        return replace(super().optim(first), decay_norm_and_bias=False)

    def start(self, head: Head, fresh: Head) -> Head:  # noqa: ARG002
        """Return the head with factors on its rows, or a copy of it in which the scales alone are learned."""
        if isinstance(head, LinearHead):
            return _ScaledRows(head)
        copied = copy.deepcopy(head).requires_grad_(requires_grad=False)
        scales = _class_scales(copied)
        assert scales is not None  # noqa: S101 (check has seen to it)
        scales.requires_grad_(True)
        return copied

    @torch.no_grad()
    def fold(self, trained: Head, head: Head) -> None:
        """Multiply rows and biases by their factors, or take over the scales."""
        if not isinstance(trained, _ScaledRows):
            head.load_state_dict(trained.state_dict())
            return
        head.weight.copy_(trained.factor[:, None] * trained.rows)
        if head.bias is not None and trained.bias_rows is not None:
            head.bias.copy_(trained.factor * trained.bias_rows)


def _class_scales(head: Head) -> nn.Parameter | None:
    """Return the scales (K,) that a head learns, where it learns one for each class."""
    owner = getattr(head, "scale_of", None)
    learned = isinstance(owner, Scale) and owner.fixed is None and owner.raw.ndim == 1
    return owner.raw if learned and isinstance(owner, Scale) else None


class _ScaledRows(Head):
    """A linear head whose rows are constants and whose factors are learned.

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
        """Scaled class vectors (K, D)."""
        return self.factor[:, None] * self.rows

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Score with the rows as they are, then scale: z_k = f_k (w_k . h + b_k)."""
        bias = None if self.bias_rows is None else self.bias_rows.to(embedded.dtype)
        return self.factor * nn.functional.linear(embedded, self.rows.to(embedded.dtype), bias)
