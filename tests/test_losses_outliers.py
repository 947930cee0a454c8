"""Losses of outliers against loops over scalars, and training with them."""

import math

import pytest
import torch
from hypothesis import given, settings
from support.feature_batches import D, K, Rows, batch_of, linear_head, rows_and_labels
from support.scalar_math import dot, unit

from nc_tools.data import BatchOptions, DataConfig, ImageSet, Loader, WithOutliers, load_data
from nc_tools.heads import LinearHead
from nc_tools.losses import (
    CrossEntropyLoss,
    OrthogonalOutliersLoss,
    OutlierExposureLoss,
    WeightedSumLoss,
    outlier_exposure,
    term,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Outputs
from nc_tools.training import OptimConfig, TrainConfig, fit


@given(rows_and_labels)
@settings(max_examples=40, deadline=None)
def test_orthogonal_outliers(batch: tuple[Rows, list[int]]) -> None:
    rows, labels = batch
    linear = linear_head()
    outputs: Outputs = linear.outputs(torch.ones(len(rows), D, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"OrthogonalOutliersLoss needs outliers, .* Wrap the loader"):
        OrthogonalOutliersLoss()(outputs, batch_of(labels))
    outputs.outliers = linear.outputs(torch.tensor(rows, dtype=torch.float64))
    weight = linear.weight.tolist()
    cosines = [abs(dot(unit(r), unit(w))) for r in rows for w in weight]
    result = OrthogonalOutliersLoss()(outputs, batch_of(labels))
    assert float(result.detach()) == pytest.approx(sum(cosines) / len(cosines))


@given(rows_and_labels)
@settings(max_examples=40, deadline=None)
def test_outlier_exposure(batch: tuple[Rows, list[int]]) -> None:
    rows, labels = batch
    linear = linear_head()
    outputs: Outputs = linear.outputs(torch.ones(len(rows), D, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"OutlierExposureLoss needs outliers, .* Wrap the loader"):
        OutlierExposureLoss()(outputs, batch_of(labels))
    outputs.outliers = linear.outputs(torch.tensor(rows, dtype=torch.float64))
    total = 0.0
    for z in linear(torch.tensor(rows, dtype=torch.float64)).tolist():
        denominator = sum(math.exp(x) for x in z)
        total -= sum(math.log(math.exp(x) / denominator) for x in z) / K
    result = OutlierExposureLoss()(outputs, batch_of(labels))
    assert float(result.detach()) == pytest.approx(total / len(rows))


def test_outlier_exposure_is_least_where_all_logits_are_the_same() -> None:
    logits = torch.zeros(2, K, dtype=torch.float64, requires_grad=True)
    value = outlier_exposure(logits)
    assert value.tolist() == pytest.approx([math.log(K)] * 2)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert slope.abs().max() < 1e-12
    assert float(outlier_exposure(logits.detach() + torch.eye(2, K, dtype=torch.float64)).min()) > math.log(K)
    uniform = torch.full((3, K), 1 / K)
    others = torch.randn(3, K)
    torch.testing.assert_close(outlier_exposure(others).mean(), torch.nn.functional.cross_entropy(others, uniform))


def test_outliers_come_with_every_batch_and_resume_where_they_were() -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    images = ImageSet(pixels, torch.arange(40) % K, tuple("abcd"), "steps")

    def loader() -> WithOutliers:
        inside, outside = (
            Loader(images, of, BatchOptions(batch_size=4, mean=[0.0], std=[1.0]))
            for of in (torch.arange(20), torch.arange(20, 32))
        )
        return WithOutliers(inside, outside)

    batches = [batch for epoch in range(3) for batch in loader().epoch(epoch)]
    assert len(loader()) == 5
    outliers = torch.stack([b.outliers.flatten() for b in batches if b.outliers is not None]).mul(255).round().long()
    assert [sorted(outliers[i : i + 3].flatten().tolist()) for i in range(0, 15, 3)] == [list(range(20, 32))] * 5
    assert outliers[:3].flatten().tolist() != outliers[3:6].flatten().tolist()
    rest = list(loader().epoch(1, start=3))
    for left, right in zip(batches[8:10], rest, strict=True):
        assert left.outliers is not None
        assert right.outliers is not None
        assert torch.equal(left.outliers, right.outliers)
        assert torch.equal(left.inputs, right.inputs)


@pytest.mark.slow
def test_training_with_outliers_makes_them_orthogonal() -> None:
    digits = load_data(DataConfig(held_out_classes=5))
    assert digits.transfer_train is not None
    options = BatchOptions(batch_size=64, mean=digits.mean, std=digits.std)
    inside = Loader(digits.train, torch.arange(len(digits.train)), options)
    outside = Loader(digits.transfer_train, torch.arange(len(digits.transfer_train)), options)
    result = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
        model = Classifier(body, LinearHead(32, 5))
        loss = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(weight, OrthogonalOutliersLoss())])
        fit(model, loss, WithOutliers(inside, outside), TrainConfig(epochs=4), OptimConfig(lr=0.05))
        batch = next(WithOutliers(inside, outside).epoch(9))
        assert batch.outliers is not None
        cosines = (
            torch.nn.functional.normalize(model.backbone(batch.outliers))
            @ torch.nn.functional.normalize(model.head.weight).T
        )
        accuracy = (model(batch.inputs).argmax(1) == batch.labels).float().mean()
        result[weight] = float(cosines.abs().mean().detach())
        assert float(accuracy) > 0.9
    assert result[1.0] < 0.75 * result[0.0]
