"""Every way out that the errors of losses name is taken, and works."""

import math
from typing import Any

import pytest
import torch
from support.advice import Case, without_a_case
from torch import Tensor, nn
from torch.nn.functional import one_hot

from nc_tools.data import Augment, BatchOptions, ImageSet, Loader, WithOutliers
from nc_tools.heads import LinearHead
from nc_tools.losses import (
    BalancedSoftmaxLoss,
    BinaryCrossEntropyLoss,
    ClassAffineCrossEntropyLoss,
    ClassBalancedLoss,
    ClassCompactnessLoss,
    ClassWiseSmoothing,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    EarlyLearningLoss,
    FocalLoss,
    ForwardCorrectionLoss,
    LabelRelaxationLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LossTerm,
    OutlierExposureLoss,
    PerSampleLoss,
    PickAllLabelLoss,
    SupConLoss,
    WeightedSumLoss,
    affine_cross_entropy,
    term,
)
from nc_tools.models import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.specs import spec
from nc_tools.surgery import swap_head, watch
from nc_tools.training import OptimConfig, TrainConfig, fit

D, K, N = 8, 4, 12
X, Y = torch.randn(N, D, generator=torch.Generator().manual_seed(0)), torch.arange(N) % K
HEAD = LinearHead(D, K)
LOGITS = HEAD(X).detach()
BATCH = Batch(X, Y, torch.arange(N))
COUNTS = [5, 3, 2, 0]


def outputs(features: Tensor = X) -> Outputs:
    return HEAD.outputs(features)


def finite(loss: Any, first: Any = LOGITS, second: Any = Y) -> None:
    assert torch.isfinite(loss(first, second))


def with_view(features: Tensor) -> Outputs:
    both = outputs()
    both.second_view = outputs(features)
    return both


def watched() -> None:
    """As the message says: watch once, then the outputs and a batch."""
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, K))
    swap_head(model, LinearHead)
    record = watch(model)
    model(X)
    finite(DotRegressionLoss(), record.outputs, BATCH)


MODEL = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(108, D)), HEAD)


def loader(**options: Any) -> Loader:
    pixels = torch.randint(0, 256, (N, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, Y, ("a", "b", "c", "d"), "noise")
    values = {"batch_size": 6, "mean": [0.5] * 3, "std": [0.2] * 3} | options
    return Loader(images, torch.arange(N), BatchOptions(**values))


def one_epoch(loss: LossTerm, batches: Any) -> None:
    fit(MODEL, loss, batches, TrainConfig(epochs=1), OptimConfig(lr=0.01))  # a loss that is not finite is an error


def with_outliers() -> Outputs:
    both = outputs()
    both.outliers = outputs(torch.randn(3, D))
    return both


def of_a_schedule(loss: LossTerm, *, progress: float) -> None:
    loss.set_progress(progress)
    finite(loss)


class PlainLoss(LossTerm):
    """A loss without a value for each sample."""

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        return outputs.logits.square().mean()


class SampleLoss(PerSampleLoss):
    """The same, derived as the message says."""

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        return outputs.logits.square().mean(1)


class OppositeLoss(PlainLoss):
    """A loss class of one's own, for the opposite sign."""

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        return -super().compute(outputs, batch)


PROBABILITIES = torch.full((N, K), 1 / K)

CASES = [
    Case(
        "must be tensors with a number for each class",
        lambda: affine_cross_entropy(LOGITS, Y, factor=2.0),  # type: ignore[arg-type]
        lambda: affine_cross_entropy(LOGITS, Y, factor=torch.full((4,), 2.0)),
    ),
    Case(
        "Build it with feature_dim=8",
        lambda: ClassCompactnessLoss(3, K)(outputs(), BATCH),
        lambda: finite(ClassCompactnessLoss(8, K), outputs(), BATCH),
    ),
    Case(
        "pass training samples per class",
        lambda: LDAMLoss([5, -1]),
        lambda: finite(LDAMLoss([5, 3, 2, 2]), outputs(), BATCH),
    ),
    Case(
        "all 0, but a class needs training samples",
        lambda: LDAMLoss([0, 0]),
        lambda: finite(LDAMLoss([5, 3, 2, 2]), outputs(), BATCH),
    ),
    Case(
        "Pass torch.as_tensor(class_counts).clamp(min=1)",
        lambda: LogitAdjustedLoss(COUNTS, tau=-1.0),
        lambda: finite(LogitAdjustedLoss(torch.as_tensor(COUNTS).clamp(min=1), tau=-1.0)),
    ),
    Case(
        "Build it with class_counts of all 4 classes, 0 for a class without training samples",
        lambda: BalancedSoftmaxLoss([5, 3, 2])(LOGITS, Y),
        lambda: finite(BalancedSoftmaxLoss(COUNTS), LOGITS, Y.clamp(max=2)),
        lambda: finite(LogitAdjustedLoss(COUNTS), LOGITS, Y.clamp(max=2)),
    ),
    Case(
        "Build the loader with BatchOptions(views=2), or set outputs.second_view",
        lambda: SupConLoss()(outputs(), BATCH),
        lambda: one_epoch(SupConLoss(), loader(views=2, augment=Augment(padding=0, flip=True))),
        lambda: finite(SupConLoss(), with_view(X.flip(1)), BATCH),
    ),
    Case(
        "pass the images in the same order in both views",
        lambda: SupConLoss()(with_view(X[:3]), BATCH),
        lambda: finite(SupConLoss(), with_view(X.flip(1)), BATCH),
    ),
    Case(
        "Use 0, or log(K - 1)",
        lambda: BinaryCrossEntropyLoss(K, torch.inf),
        lambda: finite(BinaryCrossEntropyLoss(K, 0)),
        lambda: finite(BinaryCrossEntropyLoss(K, math.log(K - 1))),
    ),
    Case(
        "pass the training samples of each class",
        lambda: CrossEntropyLoss(ClassWiseSmoothing()),
        lambda: finite(CrossEntropyLoss(ClassWiseSmoothing(), class_counts=COUNTS)),
    ),
    Case(
        "build it with num_samples of the whole training set",
        lambda: EarlyLearningLoss(5, K)(outputs(), BATCH),
        lambda: finite(EarlyLearningLoss(N, K), outputs(), BATCH),
    ),
    Case(
        "correct the matrix",
        lambda: ForwardCorrectionLoss(2, [[1.0, 0.0], [1.0, 0.0]]),
        lambda: finite(ForwardCorrectionLoss(2, [[0.9, 0.1], [0.2, 0.8]]), LOGITS[:, :2], Y % 2),
    ),
    Case("write watched = nc_tools.watch(model) once", lambda: DotRegressionLoss()(LOGITS, Y), watched),
    Case(
        "Wrap the loader in WithOutliers(loader, outliers), or set outputs.outliers",
        lambda: OutlierExposureLoss()(outputs(), BATCH),
        lambda: one_epoch(OutlierExposureLoss(), WithOutliers(loader(), loader())),
        lambda: finite(OutlierExposureLoss(), with_outliers(), BATCH),
    ),
    Case(
        "Pass Batch(inputs, labels, index) second",
        lambda: CrossEntropyLoss()(outputs(), Y),
        lambda: finite(CrossEntropyLoss(), outputs(), Batch(X, Y, torch.arange(N))),
    ),
    Case(
        "call loss.set_progress(step / steps) before each step, or loss.set_progress(0.0) once",
        lambda: DeferredReweightingLoss([5, 3, 2, 1])(LOGITS, Y),
        lambda: of_a_schedule(DeferredReweightingLoss([5, 3, 2, 1]), progress=3 / 10),
        lambda: of_a_schedule(DeferredReweightingLoss([5, 3, 2, 1]), progress=0.0),
    ),
    Case(
        "Call the sum without them, or leave out this term",
        lambda: WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(1.0, PlainLoss())])(
            outputs(), BATCH, sample_weight=torch.ones(N)
        ),
        lambda: finite(WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(1.0, PlainLoss())]), outputs(), BATCH),
        lambda: WeightedSumLoss([term(1.0, CrossEntropyLoss())])(LOGITS, Y, sample_weight=torch.ones(N)),
    ),
    Case(
        "Pass labels.argmax(-1), or use a loss such as CrossEntropyLoss",
        lambda: LabelRelaxationLoss()(LOGITS, PROBABILITIES),
        lambda: finite(LabelRelaxationLoss(), LOGITS, PROBABILITIES.argmax(-1)),
        lambda: finite(CrossEntropyLoss(), LOGITS, PROBABILITIES),
    ),
    Case(
        "Pass tags > 0 for counts or shares, and one_hot(labels, K).bool() for single labels",
        lambda: PickAllLabelLoss()(outputs(), Batch(X, Y, torch.arange(N), tags=one_hot(Y, K))),
        lambda: finite(PickAllLabelLoss(), outputs(), Batch(X, Y, torch.arange(N), tags=one_hot(Y, K) > 0)),
        lambda: finite(PickAllLabelLoss(), outputs(), Batch(X, Y, torch.arange(N), tags=one_hot(Y, K).bool())),
    ),
    Case(
        "Derive it from PerSampleLoss, or pass another loss",
        lambda: ClassBalancedLoss([5, 3, 2, 1], loss=PlainLoss()),  # type: ignore[arg-type]
        lambda: finite(ClassBalancedLoss([5, 3, 2, 1], loss=SampleLoss()), outputs(), BATCH),
        lambda: finite(ClassBalancedLoss([5, 3, 2, 1], loss=FocalLoss())),
    ),
    Case(
        "Build ClassBalancedLoss with class_counts of all 4 classes, 0 for a class without training samples",
        lambda: ClassBalancedLoss([5, 3, 2])(LOGITS, Y),
        lambda: finite(ClassBalancedLoss(COUNTS), LOGITS, Y.clamp(max=2)),
    ),
    Case(
        "Write epoch / epochs",
        lambda: DeferredReweightingLoss([5, 3, 2, 1], start=160),
        lambda: of_a_schedule(DeferredReweightingLoss([5, 3, 2, 1], start=160 / 200), progress=0.9),
    ),
    Case(
        "Write term(0.1, spec(CrossEntropyLoss))",
        lambda: term(0.1, CrossEntropyLoss),  # type: ignore[arg-type]
        lambda: finite(spec(WeightedSumLoss, terms=(term(0.1, spec(CrossEntropyLoss)),)).build({})),
    ),
    Case(
        "For the opposite sign, write a loss class of your own",
        lambda: WeightedSumLoss([term(-1.0, PlainLoss())]),
        lambda: finite(WeightedSumLoss([term(1.0, OppositeLoss())]), outputs(), BATCH),
    ),
    Case(
        "Call build({}) on each spec, or describe the whole sum as spec(WeightedSumLoss, terms=...)",
        lambda: WeightedSumLoss([term(0.1, spec(CrossEntropyLoss))]),
        lambda: finite(WeightedSumLoss([term(0.1, spec(CrossEntropyLoss).build({}))])),
        lambda: finite(spec(WeightedSumLoss, terms=(term(0.1, spec(CrossEntropyLoss)),)).build({})),
    ),
    Case(
        "Write term(weight, loss, name=...)",
        lambda: WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(0.5, CrossEntropyLoss(0.1))]),
        lambda: finite(WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(0.5, CrossEntropyLoss(0.1), name="soft")])),
    ),
    Case(
        "For one number write torch.full((K,), 2.0)",
        lambda: ClassAffineCrossEntropyLoss(factor=2.0),  # type: ignore[arg-type]
        lambda: finite(ClassAffineCrossEntropyLoss(factor=torch.full((K,), 2.0))),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says[:50])
def test_the_advice_works(case: Any) -> None:
    case.check()


def test_every_advice_has_a_case() -> None:
    assert without_a_case(CASES, "losses") == []
