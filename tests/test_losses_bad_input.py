"""What no loss can be computed from: one sentence, before anything is computed."""

import math
from collections.abc import Callable

import pytest
import torch
from support.loss_variants import COUNTS, D, K, N, batch_of, build, every_loss, outputs_for
from torch import Tensor

from nc_tools.heads import ETFHead
from nc_tools.losses import (
    BalancedSupConLoss,
    ClassBalancedLoss,
    ClassConditionalInfoNCELoss,
    CodingRateLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DHELLoss,
    DotRegressionLoss,
    FeatureEntropyLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    LossTerm,
    PickAllLabelLoss,
    SpreadLoss,
    SupConLoss,
    VectorScalingLoss,
    WeightedSumLoss,
    adjust_logits,
    class_attraction,
    class_conditional_info_nce,
    decoupled_info_nce,
    logit_adjusted_cross_entropy,
    nonl,
    ntce,
    pick_all_label,
    supervised_contrastive,
    term,
)
from nc_tools.records import Batch
from nc_tools.specs import Spec

LABELS = torch.arange(N) % K


def run(loss: LossTerm, labels: Tensor, samples: int = N) -> Tensor:
    value: Tensor = loss(outputs_for(loss, ETFHead(D, K), torch.randn(samples, D)), batch_of(labels))
    return value


@every_loss
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((N, K), 1 / K), r"integer class indices \(N,\), got torch.float32 of shape \(9, 4\)"),
        (LABELS.float(), r"got torch.float32 of shape \(9,\)"),
        (LABELS > 1, "got torch.bool"),
    ],
    ids=["soft", "float", "bool"],
)
def test_labels_that_are_not_class_indices(loss_spec: Spec[LossTerm], labels: Tensor, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run(build(loss_spec), labels)


@every_loss
def test_labels_of_other_samples_and_of_none(loss_spec: Spec[LossTerm]) -> None:
    with pytest.raises(ValueError, match=r"labels must have the shape \(9,\), one for each sample, got \(5,\)"):
        run(build(loss_spec), LABELS[:5])
    with pytest.raises(ValueError, match="needs at least one sample, got an empty batch"):
        run(build(loss_spec), LABELS[:0], samples=0)


@pytest.mark.parametrize("cls", [ClassBalancedLoss, DeferredReweightingLoss])
@pytest.mark.parametrize("counts", [[5, 3], [5, 4, 3, 2, 1]])
def test_class_weights_of_other_classes(cls: type[ClassBalancedLoss], counts: list[int]) -> None:
    with pytest.raises(
        ValueError, match=rf"are of {len(counts)} classes, but the logits have 4. Build {cls.__name__} with"
    ):
        run(cls(counts).eval(), LABELS)


@pytest.mark.parametrize("counts", ["abcd", None, [[1, 2], [3]], ["a", "b"]])
def test_counts_that_are_not_numbers(counts: object) -> None:
    with pytest.raises(TypeError, match="class_counts must hold one number for each of K >= 2 classes, got"):
        LogitAdjustedLoss(counts)  # type: ignore[arg-type]


NOT_A_NUMBER = math.nan
X, W = torch.randn(4, 3), torch.randn(2, 3)
Y = torch.tensor([0, 1, 0, 1])
NUMBERS: dict[str, tuple[Callable[[], object], str]] = {
    "tau": (lambda: LogitAdjustedLoss(COUNTS, NOT_A_NUMBER), "tau must be finite, got nan"),
    "tau inf": (lambda: LogitAdjustedLoss(COUNTS, math.inf), "tau must be finite, got inf"),
    "free tau": (lambda: logit_adjusted_cross_entropy(W, Y[:2], [1, 2, 3], math.nan), "tau must be finite"),
    "post hoc tau": (lambda: adjust_logits(W, [1, 2, 3], math.inf), "tau must be finite"),
    "VS tau": (lambda: VectorScalingLoss(COUNTS, tau=NOT_A_NUMBER), "tau must be finite, got nan"),
    "VS gamma": (
        lambda: VectorScalingLoss(COUNTS, gamma=math.inf),
        "gamma must be finite and not negative, got inf",
    ),
    "LDAMLoss": (lambda: LDAMLoss(COUNTS, math.inf), "max_margin must be finite and not negative, got inf"),
    "attract": (lambda: SpreadLoss(attract=math.inf), "must be finite, not negative and not both 0, got attract=inf"),
    "norm": (lambda: DotRegressionLoss(weight_norm=math.inf), "norms must be positive and finite, got weight_norm=inf"),
    "distortion": (lambda: CodingRateLoss(math.inf), "squared_distortion must be positive and finite, got inf"),
    "eps": (lambda: FeatureEntropyLoss(math.inf), "eps must be positive and finite, got inf"),
    "decay": (lambda: PickAllLabelLoss(math.inf), "decay must be finite and not negative, got inf"),
    "SupConLoss": (lambda: SupConLoss(math.inf), "temperature must be positive and finite, got inf"),
    "BalancedSupConLoss": (lambda: BalancedSupConLoss(math.nan), "temperature must be positive and finite, got nan"),
    "DHELLoss": (lambda: DHELLoss(-1.0), "temperature must be positive and finite, got -1.0"),
    "InfoNCE": (lambda: ClassConditionalInfoNCELoss(0.0), "temperature must be positive and finite, got 0.0"),
    "free SupCon": (lambda: supervised_contrastive(X, Y, 0.0), "temperature must be positive and finite"),
    "free InfoNCE": (lambda: class_conditional_info_nce(X, X, Y, 0.0), "temperature must be positive and finite"),
    "free DHEL": (lambda: decoupled_info_nce(X, X, 0.0), "temperature must be positive and finite"),
    "free Spread": (lambda: class_attraction(X, X, Y, 0.0), "temperature must be positive and finite"),
    "free NTCE": (lambda: ntce(X, W, Y, 0.0), "temperature must be positive and finite"),
    "free NONL": (lambda: nonl(X, W, Y, -1.0), "temperature must be positive and finite"),
    "progress": (
        lambda: DeferredReweightingLoss(COUNTS).set_progress(1.01),
        "progress must lie in .* got 1.01",
    ),
    "progress nan": (
        lambda: DeferredReweightingLoss(COUNTS).set_progress(math.nan),
        "progress must lie in .* got nan",
    ),
}


@pytest.mark.parametrize(("make", "message"), NUMBERS.values(), ids=NUMBERS)
def test_bad_numbers(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "tags", [torch.ones(4, 3), torch.ones(4, 2, dtype=torch.bool), Y], ids=["float", "too few classes", "labels"]
)
def test_tags_that_are_not_bool_for_each_class(tags: Tensor) -> None:
    with pytest.raises(TypeError, match=r"bool of shape \(4, 3\), got .* Pass tags > 0"):
        pick_all_label(X, tags)


def test_a_label_beyond_the_classes_is_not_taken_for_a_sample_without_tags() -> None:
    with pytest.raises(ValueError, match="labels must be class indices from 0 to 3"):
        run(PickAllLabelLoss(), torch.full((N,), K))


def test_a_sample_without_tags_has_no_loss() -> None:
    tags = torch.tensor([[True, False, True], [False, False, False]])
    each = pick_all_label(X[:2], tags)
    assert each[1] == 0
    assert torch.allclose(each[0], -X[0].log_softmax(0)[tags[0]].sum())


def test_two_views_are_of_the_same_images() -> None:
    head, loss = ETFHead(D, K), SupConLoss()
    outputs = head.outputs(torch.randn(N, D))
    outputs.second_view = head.outputs(torch.randn(N - 1, D))
    with pytest.raises(ValueError, match=r"two views of the same images, got features \(9, 6\) and \(8, 6\)"):
        loss(outputs, Batch(torch.zeros(N, 1), LABELS, torch.arange(N)))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((CrossEntropyLoss(),), r"takes terms, got CrossEntropyLoss\(.*Write terms="),
        (CrossEntropyLoss(), "takes a sequence of terms, got CrossEntropyLoss"),
        (term(1.0, CrossEntropyLoss()), "takes a sequence of terms, got WeightedTerm"),
    ],
)
def test_only_terms_are_summed(terms: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        WeightedSumLoss(terms)  # type: ignore[arg-type]


def test_a_schedule_gives_numbers() -> None:
    with pytest.raises(TypeError, match=r"weight of CrossEntropy must be a number, got 'a' at progress 0\.0"):
        term(lambda _: "a", CrossEntropyLoss())  # type: ignore[arg-type,return-value]


def test_a_schedule_that_goes_wrong_half_way_is_refused_there() -> None:
    loss = WeightedSumLoss((term(lambda p: math.nan if 0.4 < p < 0.6 else 1.0, CrossEntropyLoss()),))
    loss.set_progress(0.3)
    with pytest.raises(ValueError, match=r"finite and not negative, got nan at progress 0\.5"):
        loss.set_progress(0.5)
