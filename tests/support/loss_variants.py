"""Every loss with arguments to test it by, and batches to call it with."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nc_tools.heads import Head
from nc_tools.losses import (
    BinaryCrossEntropyLoss,
    ClassBalancedLoss,
    ClassCompactnessLoss,
    ClassSpreadLoss,
    ClassWiseSmoothing,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LossTerm,
    NCEAndRCELoss,
    OutlierExposureLoss,
    SupConLoss,
    SymmetricCrossEntropyLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.records import Batch, Outputs
from nc_tools.schedules import LinearSchedule
from nc_tools.specs import Spec, spec

COUNTS = [50, 20, 5, 2]

K, D, N = len(COUNTS), 6, 9


class LogitsHead(Head):
    """A head whose logits are its features."""

    scale = 1.0
    bias = None

    @property
    def weight(self) -> Tensor:
        return torch.eye(self.num_classes, self.feature_dim)


def outputs_of(logits: Tensor) -> Outputs:
    return LogitsHead(logits.shape[1], logits.shape[1]).outputs(logits)


def batch_of(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 1), labels, torch.arange(len(labels)))


# What a run fills into the spec of a loss.
FACTS = {"num_classes": K, "class_counts": COUNTS, "feature_dim": D, "num_samples": 50}


def build(loss_spec: Spec[LossTerm], **facts: int) -> LossTerm:
    loss = loss_spec.build({**FACTS, **facts})
    loss.set_progress(0.0)  # some refuse to train without
    return loss


def outputs_for(loss: LossTerm, head: Head, h: Tensor) -> Outputs:
    """Return the head's outputs, with outliers, and with a second view where the loss needs one."""
    outputs = head.outputs(h)
    outputs.outliers = head.outputs(h.flip(1) / 2)
    if loss.views == 2:
        # Not h.roll: under autocast on a CPU it refuses float16.
        outputs.second_view = head.outputs(h[:, torch.arange(h.shape[1]).roll(1)])
    return outputs


def concrete_losses(cls: type[LossTerm] = LossTerm) -> Iterator[type[LossTerm]]:
    """Yield the public losses among the subclasses that have been imported."""
    for subclass in cls.__subclasses__():
        if not subclass.__abstractmethods__ and not subclass.__name__.startswith("_"):
            yield subclass
        yield from concrete_losses(subclass)


PACKAGE_LOSSES = [cls for cls in dict.fromkeys(concrete_losses()) if cls.__module__.startswith("nc_tools.")]

# Every loss as a run builds it (a sum has no default terms), and losses with other arguments.
VARIANTS: list[Spec[LossTerm]] = [
    *(Spec(cls) for cls in PACKAGE_LOSSES if cls is not WeightedSumLoss),
    spec(CrossEntropyLoss, label_smoothing=0.1),
    spec(CrossEntropyLoss, label_smoothing=ClassWiseSmoothing(0.4, 0.1)),
    spec(FocalLoss, gamma=0.5),
    spec(SymmetricCrossEntropyLoss, alpha=0.5, beta=0.3),
    spec(DotRegressionLoss, mean_over="classes"),
    spec(ClassBalancedLoss, loss=spec(BinaryCrossEntropyLoss)),
    spec(DeferredReweightingLoss, loss=spec(LDAMLoss), start=0.2),
    spec(
        WeightedSumLoss,
        terms=(term(1.0, spec(LogitAdjustedLoss)), term(LinearSchedule(0.0, 0.1), spec(ClassCompactnessLoss))),
    ),
    spec(WeightedSumLoss, terms=(term(0.5, spec(SupConLoss)), term(2.0, spec(ClassSpreadLoss), name="push"))),
    spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)), term(0.5, spec(OutlierExposureLoss)))),
    spec(WeightedSumLoss, terms=(term(1.0, spec(LogitAdjustedLoss)), term(0.5, spec(FocalLoss)))),
    spec(NCEAndRCELoss, alpha=0.5, beta=2.0, log_zero=-9.0),
]


def variant_name(loss_spec: Spec[LossTerm]) -> str:
    return f"{loss_spec.cls.__name__}-{', '.join(loss_spec.arguments)}"


every_loss = pytest.mark.parametrize("loss_spec", VARIANTS, ids=variant_name)
